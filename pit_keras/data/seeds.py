"""Stateless randomness: every draw is a pure function of (seed, epoch, example, purpose).

Nothing here keeps a state, so a run that was interrupted draws what it would have drawn, and the
order in which parallel workers get to an example does not matter.
"""

import enum

import tensorflow as tf


class Purpose(enum.IntEnum):
    """What a draw is for. Each purpose has a stream of its own, independent of the others.

    Two draws with one seed are not independent, not even of different shapes or distributions.
    """

    CROP = 0
    FLIP = 1
    CUTMIX_SHARE = 2
    CUTMIX_BOX = 3
    OPERATIONS = 4
    MAGNITUDES = 5
    ERASE = 6
    ERASE_BOX = 7
    ERASE_NOISE = 8
    MIX_CHOICE = 9
    MIXUP_SHARE = 10
    COLOR_JITTER = 11
    DETECTION_CROP = 12
    SCALE = 13


def example_seed(seed, epoch, example_id):
    """The seed of one example in one epoch, int64 (2,), for the `tf.random.stateless_*` functions.

    `seed`, `epoch` and `example_id` are integer scalars, Python's or TensorFlow's. The seed of a
    batch is the seed of its first example.
    """
    run = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.random.experimental.stateless_fold_in(run, tf.cast(example_id, tf.int64))


def seed_for(seed, purpose):
    """The seed, int64 (2,), of the draws that serve one `Purpose`."""
    return tf.random.experimental.stateless_fold_in(seed, tf.constant(purpose, tf.int64))
