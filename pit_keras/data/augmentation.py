"""The random resized crop and flip of one image, as pure functions of its seed."""

import math

import tensorflow as tf

from pit_keras.data.seeds import Purpose, seed_for

CROP_TRIES = 10


def crop_box(image_height, image_width, seed, scale, aspect):
    """A random resized crop within the image: int32 (4,), top, left, height, width.

    The distribution is that of torchvision's RandomResizedCrop: the area's share is uniform in
    `scale`, the aspect log-uniform in `aspect`, the first of ten boxes that fits is placed
    uniformly; if none fits, the box is the largest centred one whose aspect is allowed.
    (`tf.image.stateless_sample_distorted_bounding_box` draws the aspect uniformly.)
    """
    if not (0 < scale[0] <= scale[1] <= 1 and 0 < aspect[0] <= aspect[1]):
        raise ValueError(
            "A random resized crop needs 0 < low <= high, and an area share of at most 1, got "
            f"scale {tuple(scale)} and aspect {tuple(aspect)}."
        )
    image_size = tf.cast(tf.stack([image_height, image_width]), tf.float32)
    draws = tf.random.stateless_uniform((2 * CROP_TRIES + 2,), seed_for(seed, Purpose.CROP))
    share, log_aspect, place = tf.split(draws, [CROP_TRIES, CROP_TRIES, 2])
    area = tf.reduce_prod(image_size) * _between(share, *scale)
    ratio = tf.exp(_between(log_aspect, *map(math.log, aspect)))
    boxes = tf.round(tf.sqrt(tf.stack([area / ratio, area * ratio], axis=1)))  # (tries, 2): h, w
    fits = tf.reduce_all((boxes > 0) & (boxes <= image_size), axis=1)
    box = boxes[tf.argmax(fits)]
    corner = tf.minimum(tf.floor(place * (image_size - box + 1)), image_size - box)
    drawn = tf.concat([corner, box], axis=0)
    chosen = tf.where(tf.reduce_any(fits), drawn, _centred_box(image_size, aspect))
    return tf.cast(chosen, tf.int32)


def is_mirrored(seed):
    """Whether to mirror an image left to right: a boolean scalar, true for one half of them."""
    return tf.random.stateless_uniform((), seed_for(seed, Purpose.FLIP)) < 0.5


def _between(uniform, low, high):
    return low + (high - low) * uniform


def _centred_box(image_size, aspect):
    """The largest centred box with an allowed aspect: float32 (4,), top, left, height, width."""
    height, width = image_size[0], image_size[1]
    box = tf.stack(
        [
            tf.minimum(height, tf.round(width / min(aspect))),
            tf.minimum(width, tf.round(height * max(aspect))),
        ]
    )
    return tf.concat([tf.floor((image_size - box) / 2), box], axis=0)
