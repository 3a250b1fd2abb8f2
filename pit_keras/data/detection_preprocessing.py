"""From an image of any size to what a detector sees in evaluation: resize, pad, normalise.

Evaluation, prediction and the exported models use the same functions, so they agree to the last
bit.
"""

import tensorflow as tf

from pit_keras.data.detection_augmentation import resize, resized_size
from pit_keras.data.preprocessing import normalise


def preprocess_detection(images, data, fixed_size=None):
    """The inputs of a masked detector, see `masked_inputs`.

    `images` are uint8 (B, h, w, 3) of any size, known while tracing or not. The detector sees them
    in `fixed_size` (height, width), or where that is None in the short and long side of
    `data.image_size`, upright for upright images.
    """
    pixels, content = fit(images, data.image_size, fixed_size)
    return masked_inputs(pixels, tf.tile(content[tf.newaxis], [tf.shape(images)[0], 1]), data)


def fit(images, image_size, fixed_size=None):
    """Resizes images, aspect kept, and pads them with zeros at the right and below.

    Returns uint8 (B, H, W, 3), and the height and width of the images in it, int32 (2,). Sizes are
    those of `preprocess_detection`.
    """
    height, width = tf.unstack(tf.shape(images)[1:3])
    short, longest = sorted(fixed_size or image_size)
    if fixed_size is None:
        canvas = padded_size(height > width, image_size)
    else:
        canvas = tf.constant(fixed_size, tf.int32)
        # Turned against what it is to fit into, the image's long side lies along the short one.
        is_turned = (height > width) != (fixed_size[0] > fixed_size[1])
        longest = tf.cast(tf.where(is_turned, short, longest), tf.int64)
    content = resized_size(height, width, short, longest)
    missing = canvas - content
    pixels = tf.pad(resize(images, content), [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]])
    return tf.ensure_shape(pixels, (images.shape[0], *(fixed_size or (None, None)), 3)), content


def padded_size(is_upright, image_size):
    """The height and width to pad to, int32 (2,), from the short and the long side."""
    short, long = image_size
    return tf.where(is_upright, tf.constant([long, short]), tf.constant([short, long]))


def masked_inputs(pixels, content, data):
    """Normalises padded images, uint8 (B, H, W, 3), and marks their padding.

    `content`, int32 (B, 2), is the height and width of each image without its padding. Returns
    `images`, float32 (B, H, W, 3), zeros where there is padding, and `padding_mask`, bool
    (B, H, W), true there.
    """
    height, width = (pixels.shape[axis] or tf.shape(pixels)[axis] for axis in (1, 2))
    rows = tf.range(height) < content[:, :1]  # (B, H)
    columns = tf.range(width) < content[:, 1:]  # (B, W)
    mask = ~(rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :])  # (B, H, W)
    images = tf.where(mask[..., tf.newaxis], 0.0, normalise(pixels, data.mean, data.std))
    return {"images": images, "padding_mask": mask}
