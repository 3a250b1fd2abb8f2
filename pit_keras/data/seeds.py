"""Stateless randomness: every draw is a pure function of (seed, epoch, example, purpose).

So an interrupted run draws what it would have drawn, in whatever order parallel workers get to an
example.
"""

import enum

import tensorflow as tf


class Purpose(enum.IntEnum):
    """The purpose of a draw; each has an independent stream.

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
    """The seed of one example in one epoch, int64 (2,), for `tf.random.stateless_*`.

    A batch has the seed of its first example.
    """
    run = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.random.experimental.stateless_fold_in(run, tf.cast(example_id, tf.int64))


def seed_for(seed, purpose):
    """The seed, int64 (2,), of the draws for one `Purpose`."""
    return tf.random.experimental.stateless_fold_in(seed, tf.constant(purpose, tf.int64))
