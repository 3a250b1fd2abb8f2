"""Random erasing (Zhong et al., AAAI 2020), as DeiT and PiT train with it."""

import math

import tensorflow as tf

from pit_keras.data.seeds import Purpose, seed_for

AREA = (0.02, 1 / 3)  # the box's share of the image
ASPECT = (0.3, 1 / 0.3)  # its height / width
TRIES = 10


def random_erasing(image, seed, probability):
    """Replaces a random box of a normalised image by noise, with the given probability.

    Every value of the box is drawn from the standard normal distribution (timm's mode "pixel").
    The image is float32 (H, W, channels) with static shape.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"The probability of erasing must be in [0, 1], got {probability}.")
    erased = tf.random.stateless_uniform((), seed_for(seed, Purpose.ERASE)) < probability
    return tf.cond(erased, lambda: _erase(image, seed), lambda: image)


def erasing_box(height, width, seed):
    """The box to erase: (top, bottom, left, right), int32 scalars, ends exclusive.

    The area is uniform in `AREA`, the aspect log-uniform in `ASPECT`. The first of ten boxes that
    is smaller than the image both ways is placed uniformly; if none is, the box is empty.
    """
    draws = tf.random.stateless_uniform((2 * TRIES + 2,), seed_for(seed, Purpose.ERASE_BOX))
    share, log_aspect, place = tf.split(draws, [TRIES, TRIES, 2])
    area = (AREA[0] + (AREA[1] - AREA[0]) * share) * height * width
    low, high = map(math.log, ASPECT)
    aspect = tf.exp(low + (high - low) * log_aspect)
    boxes = tf.round(tf.sqrt(tf.stack([area * aspect, area / aspect], axis=1)))  # (tries, 2)
    size = tf.constant([height, width], tf.float32)
    fits = tf.reduce_all(boxes < size, axis=1)
    box = tf.where(tf.reduce_any(fits), boxes[tf.argmax(fits)], tf.zeros(2))
    corner = tf.minimum(tf.floor(place * (size - box + 1)), size - box)
    first, last = tf.cast(corner, tf.int32), tf.cast(corner + box, tf.int32)
    return first[0], last[0], first[1], last[1]


def _erase(image, seed):
    height, width, channels = image.shape
    top, bottom, left, right = erasing_box(height, width, seed)
    shape = (bottom - top, right - left, channels)
    noise = tf.random.stateless_normal(shape, seed_for(seed, Purpose.ERASE_NOISE))
    rows = image[top:bottom]
    rows = tf.concat([rows[:, :left], noise, rows[:, right:]], axis=1)
    erased = tf.concat([image[:top], rows, image[bottom:]], axis=0)
    return tf.ensure_shape(erased, image.shape)
