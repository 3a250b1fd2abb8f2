"""From an encoded image to what the model sees in evaluation: decode, resize, crop, normalise.

The same functions serve evaluation, prediction and the exported models, so the three agree to the
last bit. Pixels are RGB with values in 0..255 until `normalise`.
"""

import math
import os

import numpy as np
import tensorflow as tf

from pit_keras.data.orientation import box_before_turning, orientation_of, turned

_JPEG_MARGIN = 2  # columns


def decode(contents, apply_orientation=False):
    """Decodes JPEG or PNG bytes, a string scalar, to uint8 (H, W, 3).

    Grey and palette images are expanded, CMYK is converted, transparency is dropped and 16 bits
    per channel become 8, the high ones. Images of 8 bits have the pixels of
    `PIL.Image.open(...).convert("RGB")`; with `apply_orientation` a JPEG is turned as its EXIF
    says. Other bytes, and those cut short, raise a `tf.errors.InvalidArgumentError`.
    """
    # Despite its name the operation reads PNG as well. Its default DCT is the fast one, which
    # misses Pillow's pixels by up to 7 levels without being faster.
    image = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")
    image = tf.ensure_shape(image, (None, None, 3))
    return turned(image, orientation_of(contents)) if apply_orientation else image


def decode_box(contents, choose_box, apply_orientation=False):
    """The pixels of `decode` in a box, in less time; uint8 (height, width, 3).

    `choose_box` gives the box, int32 (4,), top, left, height, width, for an image's height and
    width. A JPEG is not read below it, so damage there goes unseen, unless the file is cut short.
    """
    if apply_orientation:
        orientation = orientation_of(contents)
        box = decode_box(contents, box_before_turning(choose_box, orientation))
        return turned(box, orientation)
    # Only the whole of a file that does not end as it should tells whether it is cut short.
    last_two = tf.maximum(tf.strings.length(contents) - 2, 0)
    ends_well = tf.strings.substr(contents, last_two, 2) == b"\xff\xd9"
    return tf.cond(
        tf.io.is_jpeg(contents) & ends_well,
        lambda: _decode_jpeg_box(contents, choose_box),
        lambda: cut(decode(contents), choose_box),
    )


def cut(image, choose_box):
    """The box of an image (H, W, C) that `choose_box` gives, see `decode_box`."""
    size = tf.shape(image)
    top, left, height, width = tf.unstack(choose_box(size[0], size[1]))
    return image[top : top + height, left : left + width]


def _decode_jpeg_box(contents, choose_box):
    size = tf.io.extract_jpeg_shape(contents)
    top, left, height, width = tf.unstack(choose_box(size[0], size[1]))
    # Colours of half the resolution are interpolated. At the sides of a box the decoder does it
    # without the neighbours that it has in the whole image, so it gets a few columns more.
    first = tf.maximum(left - _JPEG_MARGIN, 0)
    last = tf.minimum(left + width + _JPEG_MARGIN, size[1])
    columns = tf.image.decode_and_crop_jpeg(
        contents,
        tf.stack([top, first, height, last - first]),
        channels=3,
        dct_method="INTEGER_ACCURATE",
    )
    return columns[:, left - first : left - first + width]


def load_image(path, apply_orientation=False):
    """Reads the image file at `path`, which must be complete, as a uint8 array (H, W, 3)."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no image at {path}.")
    try:
        return decode(tf.io.read_file(os.fsencode(path)), apply_orientation).numpy()
    except tf.errors.OpError as error:
        raise ValueError(f"{path} cannot be read as a JPEG or PNG image.") from error


def resize(image, size):
    """Resizes uint8 or float images (..., H, W, 3) in 0..255 to `size` (height, width).

    Bicubic (Keys' kernel, a = -0.5) with antialiasing, as Pillow does. The result is float32, but
    holds what an 8-bit image would: rounded to whole levels and clipped to 0..255, for the bicubic
    kernel overshoots.
    """
    return _to_levels(tf.image.resize(image, size, method="bicubic", antialias=True))


def evaluation_geometry(height, width, image_size, crop_ratio):
    """Two int32 tensors (2,): a resized image's (height, width) and its crop's (top, left).

    The image is scaled, aspect kept, until it just covers floor(image_size / crop_ratio); the other
    side is rounded down, as torchvision does. The crop is the middle, with torchvision's rounding
    (half to even) where the margin is odd. For square targets this is timm's evaluation transform.

    `image_size` is the crop's (height, width); `crop_ratio` its share of the resized image's short
    side, in (0, 1].
    """
    target_height, target_width = (math.floor(side / crop_ratio) for side in image_size)
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
    resized = tf.where(
        height * target_width <= width * target_height,  # the height is the scarce side
        tf.stack([target_height, width * target_height // height]),
        tf.stack([height * target_width // width, target_width]),
    )
    margin = tf.cast(resized - tf.constant(image_size, tf.int64), tf.float64)
    return tf.cast(resized, tf.int32), tf.cast(tf.round(margin / 2), tf.int32)


def resize_and_crop(image, image_size, crop_ratio):
    """Resizes and centre-crops, see `evaluation_geometry`; smaller images are enlarged.

    `image` is uint8 or float, (H, W, 3) or (B, H, W, 3), in 0..255, of any size, known while
    tracing or not. The result is float32 of the same rank, whole levels in 0..255 (see `resize`).
    """
    image = tf.convert_to_tensor(image)
    batch = image if image.shape.rank == 4 else image[tf.newaxis]
    source_size = tf.shape(batch)[1:3]
    resized_size, corner = evaluation_geometry(
        source_size[0], source_size[1], image_size, crop_ratio
    )
    # Equal to `tf.image.resize` and a slice, without computing the pixels that are cut off.
    crop = tf.raw_ops.ScaleAndTranslate(
        images=batch,
        size=tf.constant(image_size, tf.int32),
        scale=tf.cast(resized_size, tf.float32) / tf.cast(source_size, tf.float32),
        translation=-tf.cast(corner, tf.float32),
        kernel_type="keyscubic",
        antialias=True,
    )
    crop = _to_levels(crop)
    return crop if image.shape.rank == 4 else crop[0]


def normalise(image, mean, std):
    """(image / 255 - mean) / std, per channel, for images (..., H, W, 3) in 0..255; float32."""
    image = tf.convert_to_tensor(image)
    width = image.shape[-2] or tf.shape(image)[-2]
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    scale, offset = (
        tf.tile(tf.constant(row, tf.float32), [width]) for row in (1 / (255 * std), mean / std)
    )
    # (..., H, W, 3) -> (... * H, W * 3): broadcasting a row is 2.7 times as fast as a pixel.
    rows = tf.reshape(tf.cast(image, tf.float32), tf.stack([-1, width * 3]))
    rows = rows * scale - offset
    return tf.ensure_shape(tf.reshape(rows, tf.shape(image)), image.shape)


def preprocess_evaluation(image, config):
    """Resizes, crops (see `resize_and_crop`) and normalises as a `DataConfig` asks."""
    image = resize_and_crop(image, config.image_size, config.eval_crop)
    return normalise(image, config.mean, config.std)


def _to_levels(image):
    return tf.clip_by_value(tf.round(image), 0.0, 255.0)
