"""From an image of any size to what a detector sees in evaluation: resize, normalise, pad.

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
        `images`, float32 (B, H, W, 3), normalised, zeros where there is padding; and
        `padding_mask`, bool (B, H, W), true there.
    """
    height, width = tf.unstack(tf.shape(images)[1:3])
    content = _content_size(height, width, data.image_size, fixed_size)
    canvas = _canvas_size(height, width, data.image_size, fixed_size)
    pixels = normalise(resize(images, content), data.mean, data.std)
    missing = canvas - content
    pixels = tf.pad(pixels, [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]])
    inside = tf.fill(tf.concat([tf.shape(images)[:1], content], axis=0), False)
    mask = tf.pad(inside, [[0, 0], [0, missing[0]], [0, missing[1]]], constant_values=True)
    shape = (images.shape[0], *(fixed_size or (None, None)))
    return {
        "images": tf.ensure_shape(pixels, (*shape, 3)),
        "padding_mask": tf.ensure_shape(mask, shape),
    }


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
