"""Crop, resize and mirror an image and its boxes for detection, as functions of a seed.

The steps are those of published DETR (Carion et al., ECCV 2020, `datasets/coco.py`), with every
size as a share of the largest short side: 800 there, 400 in the PiT paper's section 4.2. DETR
resizes, crops and resizes again; here the crop is taken from the stored image, so that it is
resampled only once.
"""

import tensorflow as tf

from pit_keras.data.augmentation import is_mirrored
from pit_keras.data.seeds import Purpose, seed_for

# Shares of the largest short side.
SCALES = tuple(0.6 + 0.04 * step for step in range(11))  # DETR: 480, 512, ... 800
CROPPED_FROM = (0.5, 0.625, 0.75)  # DETR: short sides of 400, 500 and 600
CROP_SIDES = (0.48, 0.75)  # DETR: 384 to 600


def resized_size(height, width, short_side, longest):
    """The height and width of a resized image, int32 (2,), its aspect kept up to rounding.

    The short side becomes `short_side`, or less where the long side would exceed `longest`. The
    arguments are integers of Python, or int64 tensors.
    """
    height, width, target = (tf.cast(side, tf.int64) for side in (height, width, short_side))
    short, long = tf.minimum(height, width), tf.maximum(height, width)
    limited = tf.cast(tf.round(longest * short / long), tf.int64)  # float64, half to even
    target = tf.maximum(tf.where(long * target > longest * short, limited, target), 1)
    other = tf.minimum(target * long // short, longest)
    sides = tf.where(height <= width, tf.stack([target, other]), tf.stack([other, target]))
    return tf.cast(sides, tf.int32)


def resize(image, size):
    """Resizes uint8 (H, W, 3): bilinear with antialiasing, in whole levels, as Pillow does."""
    pixels = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.cast(tf.round(pixels), tf.uint8)


def crop_box(height, width, seed, largest):
    """A training image's crop: int32 (4,), top, left, height, width; one half stays whole.

    The other images are thought of as resized to one of three short sides (`CROPPED_FROM`). There
    the box's sides are drawn evenly from `CROP_SIDES`, as far as the image has them, and its place
    evenly. `largest` is the largest short side.
    """
    draws = tf.random.stateless_uniform(
        (6,), seed_for(seed, Purpose.DETECTION_CROP), dtype="double"
    )
    image = tf.cast(tf.stack([height, width]), tf.float64)
    short_side = tf.round(largest * _one_of(CROPPED_FROM, draws[1]))
    thought = tf.floor(image * short_side / tf.reduce_min(image))
    least, most = (tf.cast(round(share * largest), tf.float64) for share in CROP_SIDES)
    most = tf.minimum(thought, most)
    least = tf.minimum(least, most)
    sides = least + tf.floor(draws[2:4] * (most - least + 1))
    box = tf.clip_by_value(tf.round(sides * image / thought), 1, image)
    corner = tf.floor(draws[4:] * (image - box + 1))
    whole = tf.concat([tf.zeros_like(image), image], axis=0)
    return tf.cast(tf.where(draws[0] < 0.5, tf.concat([corner, box], axis=0), whole), tf.int32)


def short_side(seed, largest):
    """A random one of `SCALES` times the largest short side, int64."""
    draw = tf.random.stateless_uniform((), seed_for(seed, Purpose.SCALE), dtype="double")
    return tf.cast(tf.round(largest * _one_of(SCALES, draw)), tf.int64)


def cut_boxes(boxes, labels, box):
    """The boxes (n, 4) and labels within a crop, see `crop_box`; those outside are left out.

    Boxes are left, top, right, bottom in pixels, first of the image and then of the crop.
    """
    top, left, height, width = tf.unstack(tf.cast(box, tf.float32))
    moved = boxes - tf.stack([left, top, left, top])
    clipped = tf.clip_by_value(moved, 0.0, tf.stack([width, height, width, height]))
    shown = tf.reduce_all(clipped[:, 2:] > clipped[:, :2], axis=1)
    return tf.boolean_mask(clipped, shown), tf.boolean_mask(labels, shown)


def centre_boxes(boxes, height, width):
    """Corners in pixels to centre x, centre y, width and height as shares of the image, (n, 4)."""
    sides = tf.cast(tf.stack([width, height, width, height]), tf.float32)
    first, last = tf.split(boxes / sides, 2, axis=1)
    return tf.concat([(first + last) / 2, last - first], axis=1)


def mirror(image, boxes):
    """Mirrors an image left to right, with its boxes of `centre_boxes`."""
    x, others = tf.split(boxes, [1, 3], axis=1)
    return tf.reverse(image, axis=[1]), tf.concat([1 - x, others], axis=1)


def augment(image, boxes, labels, seed, image_size, *, flip, multi_scale, random_crop):
    """Augments a training image, uint8 (H, W, 3), with its boxes (n, 4) and labels (n,).

    Args:
        boxes: left, top, right, bottom in pixels; afterwards see `centre_boxes`.
        image_size: the largest short side and the largest long side.
        flip, random_crop: mirror one half of the images, and crop one half (see `crop_box`).
        multi_scale: draw the short side, else it is the largest.
    """
    largest, longest = image_size
    if random_crop:
        box = crop_box(tf.shape(image)[0], tf.shape(image)[1], seed, largest)
        boxes, labels = cut_boxes(boxes, labels, box)
        top, left, height, width = tf.unstack(box)
        image = image[top : top + height, left : left + width]
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    boxes = centre_boxes(boxes, height, width)
    target = short_side(seed, largest) if multi_scale else largest
    image = resize(image, resized_size(height, width, target, longest))
    if flip:
        image, boxes = tf.cond(
            is_mirrored(seed), lambda: mirror(image, boxes), lambda: (image, boxes)
        )
    return image, boxes, labels


def _one_of(values, draw):
    """The value that `draw`, uniform in 0..1, picks."""
    return tf.constant(values, tf.float64)[tf.cast(draw * len(values), tf.int32)]
