"""Mixing the images of a batch and their labels with each other."""

import tensorflow as tf

from pit_keras.data.seeds import Purpose, seed_for


def cutmix(images, labels, seed, alpha):
    """CutMix (Yun et al., ICCV 2019): pastes a box of the reversed batch into every image.

    One box for the whole batch: its area's share is 1 - lambda, lambda ~ Beta(alpha, alpha), its
    aspect is the image's, its centre uniform, and it is clipped at the border. The partner of
    image i is image B - 1 - i, as in timm. A label weighs what the image really shows: the exact
    share of the pixels after clipping.

    Args:
        images: (B, H, W, C) of any type, with static H and W.
        labels: float32 (B, classes), one-hot.
        seed: integer (2,), see `seeds.example_seed`.
        alpha: of the Beta distribution, positive.

    Returns:
        Mixed images and labels, of the same types and shapes.
    """
    if alpha <= 0:
        raise ValueError(f"CutMix needs a positive alpha, got {alpha}.")
    height, width = images.shape[1:3]
    top, bottom, left, right = cutmix_box(height, width, seed, alpha)
    # Slices rather than a mask: masking took 20 times as long.
    rows = images[:, top:bottom]
    partner = tf.reverse(rows[:, :, left:right], axis=[0])
    rows = tf.concat([rows[:, :, :left], partner, rows[:, :, right:]], axis=2)
    mixed = tf.concat([images[:, :top], rows, images[:, bottom:]], axis=1)
    pasted = tf.cast((bottom - top) * (right - left), tf.float32) / (height * width)
    labels = (1 - pasted) * labels + pasted * tf.reverse(labels, axis=[0])
    return tf.ensure_shape(mixed, images.shape), labels


def cutmix_box(height, width, seed, alpha):
    """The box that CutMix pastes: (top, bottom, left, right), int32 scalars, ends exclusive."""
    size = tf.constant([height, width], tf.int32)
    kept = _beta(seed_for(seed, Purpose.CUTMIX_SHARE), alpha)
    half = tf.cast(tf.cast(size, tf.float64) * tf.sqrt(1 - kept), tf.int32) // 2
    place = tf.random.stateless_uniform((2,), seed_for(seed, Purpose.CUTMIX_BOX), dtype=tf.float64)
    centre = tf.cast(place * tf.cast(size, tf.float64), tf.int32)
    first, last = tf.maximum(centre - half, 0), tf.minimum(centre + half, size)
    return first[0], last[0], first[1], last[1]


def _beta(seed, alpha):
    """A draw from Beta(alpha, alpha), float64, as the ratio of two Gamma draws."""
    gammas = tf.random.stateless_gamma((2,), seed, tf.constant(alpha, tf.float64), dtype=tf.float64)
    return tf.math.divide_no_nan(gammas[0], tf.reduce_sum(gammas))  # a minute alpha underflows
