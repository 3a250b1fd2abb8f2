"""From an image of any size to what a detector sees in evaluation: resize, pad, normalise.

Prediction and the exported models do what `detection_pipeline.detection_evaluation_batches` does,
to the last bit: an image is filled up to the image size there, upright or not, and its padding is
masked.
"""

import tensorflow as tf

from pit_keras.data.detection_augmentation import resize, resized_size
from pit_keras.data.preprocessing import normalise


def preprocess_detection(images, data, fixed_size=None):
    """What a masked detector takes of images.

    Args:
        images: uint8 (B, h, w, 3), of any size, also of one that is unknown while tracing.
        data: A `DataConfig`; its image_size is the short and the long side of what is seen.
        fixed_size: Height and width, of a detector that takes images of this size only; None for
            one that takes all, which sees the image size, or upright for upright images.

    Returns:
        As `masked_inputs`.
    """
    pixels, content = fit(images, data.image_size, fixed_size)
    return masked_inputs(pixels, tf.tile(content[tf.newaxis], [tf.shape(images)[0], 1]), data)


def fit(images, image_size, fixed_size=None):
    """Resizes images, aspect kept, and fills them up with zeros at the right and below.

    Args:
        images, fixed_size: As for `preprocess_detection`.
        image_size: The short and the long side of what is seen.

    Returns:
        uint8 (B, H, W, 3); and the height and width of the image therein, int32 (2,).
    """
    height, width = tf.unstack(tf.shape(images)[1:3])
    content = _content_size(height, width, image_size, fixed_size)
    missing = _canvas_size(height, width, image_size, fixed_size) - content
    pixels = tf.pad(resize(images, content), [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]])
    return tf.ensure_shape(pixels, (images.shape[0], *(fixed_size or (None, None)), 3)), content


def masked_inputs(pixels, content, data):
    """Normalises images that are filled up, and says where.

    Args:
        pixels: uint8 (B, H, W, 3), see `fit`.
        content: int32 (B, 2), height and width of each image therein.
        data: A `DataConfig` with mean and std.

    Returns:
        `images`, float32 (B, H, W, 3), normalised, zeros where there is padding; and
        `padding_mask`, bool (B, H, W), true there.
    """
    height, width = (pixels.shape[axis] or tf.shape(pixels)[axis] for axis in (1, 2))
    rows = tf.range(height) < content[:, :1]  # (B, H)
    columns = tf.range(width) < content[:, 1:]  # (B, W)
    mask = ~(rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :])  # (B, H, W)
    images = tf.where(mask[..., tf.newaxis], 0.0, normalise(pixels, data.mean, data.std))
    return {"images": images, "padding_mask": mask}


def _canvas_size(height, width, image_size, fixed_size):
    """The height and width that an image is filled up to, int32 (2,)."""
    if fixed_size is not None:
        return tf.constant(fixed_size, tf.int32)
    short, long = image_size
    return tf.where(height > width, tf.constant([long, short]), tf.constant([short, long]))


def _content_size(height, width, image_size, fixed_size):
    """The height and width of the resized image, int32 (2,)."""
    if fixed_size is None:
        return resized_size(height, width, *image_size)
    short, long = sorted(fixed_size)
    is_turned = (height > width) != (fixed_size[0] > fixed_size[1])
    # Turned against what it is to fit into, the image's long side lies along the short one.
    return tf.where(
        is_turned,
        resized_size(height, width, short, short),
        resized_size(height, width, short, long),
    )
