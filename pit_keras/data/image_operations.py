"""Operations on one image, uint8 (H, W, 3), with the pixels that Pillow gives.

RandAugment draws from them (`pit_keras.data.augmentation_policy`). Operations on single pixels and
histograms equal Pillow's `ImageOps` exactly; blends and warps follow its arithmetic, so they differ
by a level where a float is rounded otherwise.
"""

import functools
import math

import tensorflow as tf

# Pillow's weights of red, green and blue in a grey level, in 1/65536 (ITU-R 601-2).
_LUMA = (19595, 38470, 7471)
_WINDOW = 4  # taps of the bicubic kernel along one axis
# Added before a sample's fraction is cut off: where an image is flat, the weighted sum may be a
# little less than its level.
_ROUNDING = 2.0**-10

# Fused by XLA into a few loops, which is about three times as fast.
compiled = functools.partial(tf.function, jit_compile=True, reduce_retracing=True, autograph=False)


def invert(image):
    """The negative."""
    return 255 - image


def solarize(image, threshold):
    """Inverts the levels at and above a threshold, an integer in 0..256."""
    return tf.where(tf.cast(image, tf.int32) < threshold, image, 255 - image)


def solarize_add(image, addend):
    """Adds 0..128 to the levels below 128."""
    return tf.where(image < 128, image + tf.cast(addend, tf.uint8), image)


def posterize(image, bits):
    """Keeps the highest bits of each level, 0 to 8 of them."""
    kept = tf.bitwise.left_shift(255, 8 - tf.cast(bits, tf.int32))
    return tf.bitwise.bitwise_and(image, tf.cast(tf.bitwise.bitwise_and(kept, 255), tf.uint8))


def autocontrast(image):
    """Stretches each channel to 0..255; a channel of one level stays."""
    low, high = (
        tf.cast(reduce(image, axis=(0, 1)), tf.float64) for reduce in (tf.reduce_min, tf.reduce_max)
    )
    scale = tf.math.divide_no_nan(tf.constant(255.0, tf.float64), high - low)
    levels = tf.range(256, dtype=tf.float64)[:, None]  # (256, 1) -> (256, 3)
    stretched = tf.clip_by_value(tf.cast(levels * scale - low * scale, tf.int32), 0, 255)
    table = tf.cast(tf.where(high > low, stretched, tf.range(256)[:, None]), tf.uint8)
    return tf.gather(tf.reshape(table, (-1,)), tf.cast(image, tf.int32) * 3 + tf.range(3))


def equalize(image):
    """Flattens the histogram of each channel."""
    # Compiled in parts: XLA is slow at counting, and would compute the table for each pixel.
    levels = _channel_levels(image)
    counts = tf.raw_ops.DenseBincount(
        input=tf.reshape(levels, (-1,)),
        size=3 * 256,
        weights=tf.constant([], tf.int32),
        binary_output=False,
    )
    return _entries(_flattening(counts), levels)


def adjust_color(image, factor):
    """Blends with the grey image: 0 is grey, 1 the image, more is more colourful."""
    return _blend(tf.cast(_grey(image), tf.float32)[..., None], image, factor)


def adjust_contrast(image, factor):
    """Blends with the mean grey level: 0 is flat, 1 the image."""
    mean = tf.floor(tf.reduce_mean(tf.cast(_grey(image), tf.float32)) + 0.5)
    return _blend(mean, image, factor)


def adjust_brightness(image, factor):
    """Blends with black: 0 is black, 1 the image."""
    return _blend(0.0, image, factor)


def adjust_sharpness(image, factor):
    """Blends with a smoothed image: 0 is smooth, 1 the image, more is sharper."""
    return _blend(tf.cast(_smooth(image), tf.float32), image, factor)


def shear(image, factor, fill, axis):
    """Shifts each row along it (axis 1), or each column (axis 0), bicubic.

    The shift is `factor` times the row's distance from the top edge, the column's from the left.
    """
    lines = tf.range(tf.shape(image)[1 - axis], dtype=tf.float32) + 0.5
    return _shift(image, factor * lines, axis, fill)


def translate(image, share, fill, axis):
    """Shifts by a share of the width (axis 1) or height (axis 0), bicubic.

    A positive share is to the left or upwards.
    """
    sides = tf.unstack(tf.shape(image)[:2])
    offset = share * tf.cast(sides[axis], tf.float32)
    return _shift(image, tf.fill([sides[1 - axis]], offset), axis, fill)


def rotate(image, degrees, fill):
    """Turns the image around its centre, counter-clockwise if positive, bicubic."""
    # Compiled in two parts: positions computed within the second would be rounded in several ways.
    x, y = _turned(tf.shape(image)[0], tf.shape(image)[1], degrees)
    return _sample(image, x, y, fill)


@compiled
def _turned(height, width, degrees):
    """Where the pixels of a turned image come from: x and y, float32 (H, W)."""
    angle = degrees * (math.pi / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    # Positions relative to the centre: of the result's pixels, then of where they come from.
    column = tf.range(width, dtype=tf.float32)[None, :] - (tf.cast(width, tf.float32) - 1) / 2
    row = tf.range(height, dtype=tf.float32)[:, None] - (tf.cast(height, tf.float32) - 1) / 2
    x = column * cosine - row * sine + (tf.cast(width, tf.float32) - 1) / 2
    y = column * sine + row * cosine + (tf.cast(height, tf.float32) - 1) / 2
    return x, y


@compiled
def _channel_levels(image):
    """Levels of the three channels told apart, (H, W, 3) in 0..767."""
    return tf.cast(image, tf.int32) + 256 * tf.range(3)


@compiled
def _flattening(counts):
    """The equalised level of each of `_channel_levels`: counts (768,) -> uint8 (768,)."""
    counts = tf.reshape(counts, (3, 256))
    brightest = tf.argmax(tf.range(1, 257) * tf.cast(counts > 0, tf.int32), axis=1)
    last = tf.gather(counts, brightest, batch_dims=1)
    step = (tf.reduce_sum(counts, axis=1) - last) // 255  # (3,)
    below = tf.cumsum(counts, axis=1, exclusive=True)
    flattened = (step[:, None] // 2 + below) // tf.maximum(step, 1)[:, None]
    table = tf.where(step[:, None] > 0, tf.minimum(flattened, 255), tf.range(256))
    return tf.reshape(tf.cast(table, tf.uint8), (-1,))


_entries = compiled(tf.gather)


def _grey(image):
    """Grey levels 0..255 as Pillow's convert("L"): (H, W, 3) -> int32 (H, W)."""
    weighted = tf.reduce_sum(tf.cast(image, tf.int32) * tf.constant(_LUMA), axis=-1)
    return tf.bitwise.right_shift(weighted + 32768, 16)


def _blend(start, image, factor):
    """start + factor * (image - start) in whole levels, the fraction cut off."""
    image = tf.cast(image, tf.float32)
    return _to_levels(start + factor * (image - start))


def _to_levels(values):
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)


def _smooth(image):
    """3 x 3 mean in which the centre counts five times; the image's edge stays as it is."""
    levels = tf.cast(image, tf.int32)
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    inner = (2 * (box + 4 * levels[1:-1, 1:-1]) + 13) // 26  # rounded to the nearest level
    middle = tf.concat([levels[1:-1, :1], inner, levels[1:-1, -1:]], axis=1)
    smoothed = tf.concat([levels[:1], middle, levels[-1:]], axis=0)
    large_enough = tf.reduce_all(tf.shape(image)[:2] > 2)
    return tf.cond(large_enough, lambda: smoothed, lambda: levels)


def _cubic_weights(fraction):
    """Weights of the four neighbours of a position, a list of four of the same shape.

    Pillow warps with Keys' kernel of a = -1, while it resizes with a = -0.5.
    """
    d = fraction
    return [((2 - d) * d - 1) * d, (d - 2) * d * d + 1, ((1 - d) * d + 1) * d, (d - 1) * d * d]


def _shift(image, offsets, axis, fill):
    """Bicubic samples of lines along an axis, 0 or 1, at their pixels' positions plus an offset.

    `offsets` has one for each line: (H,) if the lines are rows (axis 1), else (W,).
    """
    width, length = tf.shape(image)[1], tf.shape(image)[axis]
    whole = tf.floor(offsets)
    weights = tf.stack(_cubic_weights(offsets - whole), axis=-1)[:, None]  # (lines, 1, 4)
    centres = tf.range(length, dtype=tf.float32) + 0.5 + offsets[:, None]  # (lines, length)
    inside = (centres >= 0) & (centres < tf.cast(length, tf.float32))
    first = tf.range(length) + tf.cast(whole, tf.int32)[:, None] - 1
    place = tf.clip_by_value(first[..., None] + tf.range(_WINDOW), 0, length - 1)
    line = tf.range(tf.shape(offsets)[0])[:, None, None]
    if axis == 0:
        index = tf.transpose(place * width + line, (1, 0, 2))
        weights, inside = tf.transpose(weights, (1, 0, 2)), tf.transpose(inside)
    else:
        index = line * width + place
    taps = tf.cast(tf.gather(tf.reshape(image, (-1, 3)), index), tf.float32)  # (H, W, 4, 3)
    sampled = tf.reduce_sum(taps * weights[..., None], axis=2)
    return tf.where(inside[..., None], _to_levels(sampled + _ROUNDING), tf.constant(fill, tf.uint8))


@compiled
def _sample(image, x, y, fill):
    """Bicubic samples at positions (H, W) in pixels, 0 being the first pixel's centre."""
    height, width = tf.unstack(tf.shape(image)[:2])
    limits = tf.cast(tf.stack([width, height]), tf.float32) - 0.5
    inside = (x >= -0.5) & (y >= -0.5) & (x < limits[0]) & (y < limits[1])
    x, y = tf.clip_by_value(x, -0.5, limits[0]), tf.clip_by_value(y, -0.5, limits[1])
    left, top = tf.floor(x), tf.floor(y)
    # Two more pixels on all sides, so that every neighbour exists.
    rows = tf.concat([image[:1]] * 2 + [image] + [image[-1:]] * 2, axis=0)
    rows = tf.concat([rows[:, :1]] * 2 + [rows] + [rows[:, -1:]] * 2, axis=1)
    pixels = tf.reshape(rows, (-1, 3))
    corner = (tf.cast(top, tf.int32) + 1) * (width + 4) + tf.cast(left, tf.int32) + 1
    across, down = _cubic_weights(x - left), _cubic_weights(y - top)
    sampled = tf.zeros(tf.shape(image))
    for row in range(_WINDOW):
        taps = [
            tf.cast(tf.gather(pixels, corner + row * (width + 4) + column), tf.float32)
            * across[column][..., None]
            for column in range(_WINDOW)
        ]
        sampled += tf.add_n(taps) * down[row][..., None]
    return tf.where(inside[..., None], _to_levels(sampled + _ROUNDING), tf.constant(fill, tf.uint8))
