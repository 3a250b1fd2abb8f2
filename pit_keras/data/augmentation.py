"""Random crop, flip and erasing of one image, as pure functions of its seed."""

import math

import tensorflow as tf

from pit_keras.data.seeds import Purpose, seed_for

TRIES = 10
ERASED_AREA = (0.02, 1 / 3)  # the erased box's share of the image
ERASED_ASPECT = (0.3, 1 / 0.3)  # its height / width


def crop_box(image_height, image_width, seed, scale, aspect):
    """A random resized crop within the image: int32 (4,), top, left, height, width.

    The distribution is that of torchvision's RandomResizedCrop: the area's share is uniform in
    `scale`, the aspect log-uniform in `aspect`, the first of ten boxes that fits is placed
    uniformly; if none fits, the box is the largest centred one whose aspect is allowed.
    (`tf.image.stateless_sample_distorted_bounding_box` draws the aspect uniformly.)
    """
    image_size = tf.cast(tf.stack([image_height, image_width]), tf.float32)
    boxes, place = _tries(image_size, seed_for(seed, Purpose.CROP), scale, aspect)
    fits = tf.reduce_all((boxes > 0) & (boxes <= image_size), axis=1)
    box = boxes[tf.argmax(fits)]
    drawn = tf.concat([_corner(box, image_size, place), box], axis=0)
    chosen = tf.where(tf.reduce_any(fits), drawn, _centred_box(image_size, aspect))
    return tf.cast(chosen, tf.int32)


def is_mirrored(seed):
    """Whether to mirror an image left to right: a boolean scalar, true for one half of them."""
    return tf.random.stateless_uniform((), seed_for(seed, Purpose.FLIP)) < 0.5


def random_erasing(image, seed, probability):
    """Random erasing (Zhong et al., AAAI 2020), as DeiT and PiT train with it.

    With the given probability a random box of a normalised image, float32 (H, W, channels) with
    static shape, is replaced by noise: each value is drawn from the standard normal distribution
    (timm's mode "pixel").
    """
    erased = tf.random.stateless_uniform((), seed_for(seed, Purpose.ERASE)) < probability
    return tf.cond(erased, lambda: _erase(image, seed), lambda: image)


def erasing_box(height, width, seed):
    """The box to erase: (top, bottom, left, right), int32 scalars, ends exclusive.

    The area is uniform in `ERASED_AREA`, the aspect log-uniform in `ERASED_ASPECT`. The first of
    ten boxes that is smaller than the image both ways is placed uniformly; if none is, the box is
    empty.
    """
    size = tf.constant([height, width], tf.float32)
    box_seed = seed_for(seed, Purpose.ERASE_BOX)
    boxes, place = _tries(size, box_seed, ERASED_AREA, ERASED_ASPECT)
    boxes = boxes[:, ::-1]  # this aspect is height / width
    fits = tf.reduce_all(boxes < size, axis=1)
    box = tf.where(tf.reduce_any(fits), boxes[tf.argmax(fits)], tf.zeros(2))
    corner = _corner(box, size, place)
    first, last = tf.cast(corner, tf.int32), tf.cast(corner + box, tf.int32)
    return first[0], last[0], first[1], last[1]


def _tries(image_size, seed, scale, aspect):
    """Ten boxes, float32 (10, 2), height and width, and where to place one, (2,) in 0..1."""
    draws = tf.random.stateless_uniform((2 * TRIES + 2,), seed)
    share, log_aspect, place = tf.split(draws, [TRIES, TRIES, 2])
    area = tf.reduce_prod(image_size) * _between(share, *scale)
    ratio = tf.exp(_between(log_aspect, *map(math.log, aspect)))
    return tf.round(tf.sqrt(tf.stack([area / ratio, area * ratio], axis=1))), place


def _between(uniform, low, high):
    return low + (high - low) * uniform


def _corner(box, image_size, place):
    return tf.minimum(tf.floor(place * (image_size - box + 1)), image_size - box)


def _centred_box(image_size, aspect):
    """The largest centred box with an allowed aspect: float32 (4,), top, left, height, width."""
    height, width = image_size[0], image_size[1]
    allowed = tf.stack([width / min(aspect), height * max(aspect)])
    box = tf.minimum(image_size, tf.round(allowed))
    return tf.concat([tf.floor((image_size - box) / 2), box], axis=0)


def _erase(image, seed):
    height, width, channels = image.shape
    top, bottom, left, right = erasing_box(height, width, seed)
    shape = (bottom - top, right - left, channels)
    noise = tf.random.stateless_normal(shape, seed_for(seed, Purpose.ERASE_NOISE))
    rows = image[top:bottom]
    rows = tf.concat([rows[:, :left], noise, rows[:, right:]], axis=1)
    erased = tf.concat([image[:top], rows, image[bottom:]], axis=0)
    return tf.ensure_shape(erased, image.shape)
