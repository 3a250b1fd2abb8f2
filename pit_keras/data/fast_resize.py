"""Bicubic resizing of one 8-bit image to a fixed size: `preprocessing.resize`, twice as fast.

It is for training, where each image has a size of its own and all become alike.

Each axis is a weighted sum of a few neighbours. XLA turns that into good loops if shapes and the
number of neighbours are static. So the image is filled up to one of a few sizes, and each of those
has its compiled functions, made when they are first needed. Three functions rather than one:
XLA would merge them, and then compute every weight and every row again for each pixel.
"""

import functools

import numpy as np
import tensorflow as tf

from pit_keras.data.preprocessing import resize

# Neighbours along one axis. With n of them an image may be n / 4 times as large as the result.
_TAPS = (4, 6, 8, 12, 16)

_compiled = functools.partial(tf.function, jit_compile=True, autograph=False)
_ANY_IMAGE = (tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((), tf.bool))


def fast_resize(image, size, mirrored=False, largest=None):
    """Resizes an image, uint8 (H, W, 3) -> (*size, 3), and mirrors it left to right if asked.

    Levels differ from those of `preprocessing.resize` by one where the exact value lies half-way
    between two. An image more than four times as large along one axis is left to that function.
    `largest`, a (height, width) that no image exceeds, lets the pipeline start sooner.
    """
    shape = tf.shape(image)[:2]
    mirrored = tf.convert_to_tensor(mirrored)
    enough = [
        taps for taps in _TAPS if largest and np.all(np.less_equal(largest, _largest(size, taps)))
    ]
    choice = [taps for taps in _TAPS if not enough or taps <= enough[0]]
    branches = [functools.partial(_resizing(tuple(size), taps), image, mirrored) for taps in choice]
    branches += [] if enough else [functools.partial(_falling_back, image, size, mirrored)]
    limits = tf.constant([_largest(size, taps) for taps in choice])  # (taps, 2)
    too_small = tf.reduce_any(limits < shape, axis=1)
    return tf.switch_case(tf.reduce_sum(tf.cast(too_small, tf.int32)), branches)


def _largest(size, taps):
    """The largest (height, width) that so many neighbours are enough for."""
    return [side * taps // 4 for side in size]


@functools.cache
def _resizing(size, taps):
    """The function for one number of neighbours."""
    (height, width), (old_height, old_width) = size, _largest(size, taps)

    @_compiled
    def weights(shape, mirrored):
        row, row_weight = _neighbours(shape[0], height, taps)
        column, column_weight = (
            tf.where(mirrored, tf.reverse(values, axis=[0]), values)
            for values in _neighbours(shape[1], width, taps)
        )
        return row, row_weight, column, column_weight

    @_compiled
    def down(rows, row, weight):  # uint8 (H, W * 3) -> float32 (height, W * 3)
        return tf.reduce_sum(tf.cast(tf.gather(rows, row), tf.float32) * weight[..., None], axis=1)

    @_compiled
    def across(rows, column, weight):  # float32 (height, W * 3) -> uint8 (height, width, 3)
        pixels = tf.gather(tf.reshape(rows, (height, -1, 3)), column, axis=1)  # (h, w, taps, 3)
        values = tf.reduce_sum(pixels * weight[..., None], axis=2)
        return tf.cast(tf.clip_by_value(tf.round(values), 0.0, 255.0), tf.uint8)

    @tf.function(input_signature=_ANY_IMAGE, autograph=False)
    def resized(image, mirrored):
        shape = tf.shape(image)[:2]
        rows = tf.reshape(image, tf.stack([shape[0], 3 * shape[1]]))  # (H, W, 3) -> (H, W * 3)
        rows = tf.pad(rows, [[0, old_height - shape[0]], [0, 3 * (old_width - shape[1])]])
        rows = tf.ensure_shape(rows, (old_height, 3 * old_width))
        row, row_weight, column, column_weight = weights(shape, mirrored)
        return across(down(rows, row, row_weight), column, column_weight)

    return resized


def _falling_back(image, size, mirrored):
    pixels = tf.cast(resize(image, size), tf.uint8)
    return tf.cond(mirrored, lambda: tf.reverse(pixels, axis=[1]), lambda: pixels)


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
