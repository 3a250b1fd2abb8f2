"""Bicubic resizing of one 8-bit image to a fixed size: `preprocessing.resize`, twice as fast.

It is for training, where each image has a size of its own and all become alike.

Each axis is a weighted sum of a few neighbours. XLA turns that into good loops if shapes and the
number of neighbours are static. So the image is filled up to one of a few sizes, and each of those
has its compiled functions, made when they are first needed. Three functions rather than one:
XLA would merge them, and then compute every weight and every row again for each pixel.
"""

import functools

import tensorflow as tf

from pit_keras.data.preprocessing import resize

# Neighbours along one axis. With n of them an image may be n / 4 times as large as the result.
_TAPS = (4, 6, 8, 12, 16)


def fast_resize(image, size, mirrored=False, largest=None):
    """Resizes an image, uint8 (H, W, 3) -> (*size, 3), and mirrors it left to right if asked.

    Levels differ from those of `preprocessing.resize` by one where the exact value lies half-way
    between two. An image more than four times as large along one axis is left to that function.
    `largest`, a (height, width) that no image exceeds, lets the pipeline start sooner.
    """
    shape = tf.shape(image)[:2]
    mirrored = tf.convert_to_tensor(mirrored)
    enough = [taps for taps in _TAPS if largest and _is_enough(taps, size, largest)]
    choice = [taps for taps in _TAPS if not enough or taps <= enough[0]]
    steps = [_resizing(tuple(size), taps) for taps in choice]
    steps += [] if enough else [_falling_back(tuple(size))]
    branches = [functools.partial(step, image, mirrored) for step in steps]
    limits = tf.constant([_largest(size, taps) for taps in choice])  # (taps, 2)
    too_small = tf.reduce_any(limits < shape, axis=1)
    return tf.switch_case(tf.reduce_sum(tf.cast(too_small, tf.int32)), branches)


def _is_enough(taps, size, largest):
    return all(a >= b for a, b in zip(_largest(size, taps), largest, strict=True))


def _largest(size, taps):
    """The largest (height, width) that so many neighbours are enough for."""
    return [side * taps // 4 for side in size]


def _traced(function, *shapes_and_dtypes, **options):
    """The graph of a function of fixed shapes, made once for all pipelines."""
    specs = [tf.TensorSpec(shape, dtype) for shape, dtype in shapes_and_dtypes]
    return tf.function(function, specs, autograph=False, **options).get_concrete_function()


_IMAGE, _MIRRORED = ((None, None, 3), tf.uint8), ((), tf.bool)


@functools.cache
def _resizing(size, taps):
    height, width = _largest(size, taps)
    weights, down, across = _compiled(size, taps)

    def resized(image, mirrored):
        shape = tf.shape(image)[:2]
        rows = tf.reshape(image, tf.stack([shape[0], 3 * shape[1]]))  # (H, W, 3) -> (H, W * 3)
        rows = tf.pad(rows, [[0, height - shape[0]], [0, 3 * (width - shape[1])]])
        rows = tf.ensure_shape(rows, (height, 3 * width))
        row, row_weight, column, column_weight = weights(shape, mirrored)
        return across(down(rows, row, row_weight), column, column_weight)

    return _traced(resized, _IMAGE, _MIRRORED)


@functools.cache
def _falling_back(size):
    def resized(image, mirrored):
        straight = tf.cast(resize(image, size), tf.uint8)
        return tf.cond(mirrored, lambda: tf.reverse(straight, axis=[1]), lambda: straight)

    return _traced(resized, _IMAGE, _MIRRORED)


def _compiled(size, taps):
    """The three steps for one number of neighbours: their weights, then each axis in turn."""

    def weights(shape, mirrored):
        row, row_weight = _neighbours(shape[0], size[0], taps)
        column, column_weight = _neighbours(shape[1], size[1], taps)
        column, column_weight = (
            tf.where(mirrored, tf.reverse(values, axis=[0]), values)
            for values in (column, column_weight)
        )
        return row, row_weight, column, column_weight

    def down(rows, row, weight):  # uint8 (H, W * 3) -> float32 (height, W * 3)
        return tf.reduce_sum(tf.cast(tf.gather(rows, row), tf.float32) * weight[..., None], axis=1)

    def across(rows, column, weight):  # float32 (height, W * 3) -> uint8 (height, width, 3)
        pixels = tf.gather(tf.reshape(rows, (size[0], -1, 3)), column, axis=1)  # (h, w, taps, 3)
        values = tf.reduce_sum(pixels * weight[..., None], axis=2)
        return tf.cast(tf.clip_by_value(tf.round(values), 0.0, 255.0), tf.uint8)

    (height, width), (old_height, old_width) = size, _largest(size, taps)
    compiled = functools.partial(_traced, jit_compile=True)
    return (
        compiled(weights, ((2,), tf.int32), _MIRRORED),
        compiled(
            down,
            ((old_height, 3 * old_width), tf.uint8),
            ((height, taps), tf.int32),
            ((height, taps), tf.float32),
        ),
        compiled(
            across,
            ((height, 3 * old_width), tf.float32),
            ((width, taps), tf.int32),
            ((width, taps), tf.float32),
        ),
    )


def _neighbours(length, target, taps):
    """The neighbours of each of `target` pixels: positions int32 and weights, (target, taps).

    Keys' kernel, a = -0.5, is widened by the scale where the image shrinks. Neighbours beyond the
    edge weigh nothing.
    """
    scale = tf.cast(length, tf.float32) / target
    stretch = tf.maximum(scale, 1.0)
    centre = (tf.range(target, dtype=tf.float32) + 0.5) * scale
    # ceil(centre - 2 * stretch - 1/2) in integers: a float that is rounded in one place and not in
    # another, as XLA does it, would part a position from its weight.
    double = (2 * tf.range(target) + 1) * length - 4 * tf.maximum(length, target) - target
    first = -(-double // (2 * target))
    position = first[:, None] + tf.range(taps)
    distance = tf.abs(tf.cast(position, tf.float32) + 0.5 - centre[:, None]) / stretch
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weight = tf.where(distance < 1, near, tf.where(distance < 2, far, 0.0))
    inside = (position >= 0) & (position < length)
    weight = tf.where(inside, weight, 0.0)
    weight /= tf.reduce_sum(weight, axis=1, keepdims=True)
    return tf.clip_by_value(position, 0, length - 1), weight
