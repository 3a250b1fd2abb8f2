"""Mixing the images of a batch and their labels with each other: MixUp, CutMix, or one of the two.

The partner of image i is image B - 1 - i, as in timm, so the middle one of an odd batch keeps its
own label. Label smoothing is affine and the shares of a label sum to one, so it may be applied
before or after mixing; here the loss does it.
"""

import functools

import tensorflow as tf

from pit_keras.data.seeds import Purpose, seed_for


def mix(images, labels, seed, *, mixup_alpha=0.0, cutmix_alpha=0.0, mode="batch"):
    """MixUp and CutMix as DeiT and PiT train with them: one of the two, with equal chance.

    Args:
        images: float32 (B, H, W, C) with static shape; of any type if only CutMix is on and the
            mode is "batch".
        labels: float32 (B, classes), one-hot.
        mixup_alpha, cutmix_alpha: of the Beta distributions of lambda; 0 turns one off.
        mode: "batch", one decision, lambda and box for all images, or "element", one for each.
    """
    if mixup_alpha == cutmix_alpha == 0:
        return images, labels
    if mode == "element":
        return _mix_elements(images, labels, seed, mixup_alpha, cutmix_alpha)
    if mixup_alpha == 0:
        return cutmix(images, labels, seed, cutmix_alpha)
    if cutmix_alpha == 0:
        return mixup(images, labels, seed, mixup_alpha)
    return tf.cond(
        tf.random.stateless_uniform((), seed_for(seed, Purpose.MIX_CHOICE)) < 0.5,
        lambda: cutmix(images, labels, seed, cutmix_alpha),
        lambda: mixup(images, labels, seed, mixup_alpha),
    )


def mixup(images, labels, seed, alpha):
    """MixUp (Zhang et al., ICLR 2018): lambda of each image plus 1 - lambda of its partner.

    The whole batch has one lambda ~ Beta(alpha, alpha).
    """
    kept = tf.cast(_beta(seed_for(seed, Purpose.MIXUP_SHARE), alpha), tf.float32)
    images = _blended(images, kept)
    return images, kept * labels + (1 - kept) * tf.reverse(labels, axis=[0])


# One pass over the images instead of four.
@functools.partial(tf.function, jit_compile=True, autograph=False)
def _blended(images, kept):
    return kept * images + (1 - kept) * tf.reverse(images, axis=[0])


def cutmix(images, labels, seed, alpha):
    """CutMix (Yun et al., ICCV 2019): pastes a box of its partner into every image.

    One box for the whole batch: its area's share is 1 - lambda, lambda ~ Beta(alpha, alpha), its
    aspect is the image's, its centre uniform, and it is clipped at the border. A label weighs what
    the image really shows: the exact share of the pixels after clipping. The images may be of any
    type.
    """
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


def cutmix_box(height, width, seed, alpha, shape=()):
    """The boxes that CutMix pastes: top, bottom, left, right, int32 of a shape, ends exclusive."""
    size = tf.constant([height, width], tf.int32)
    kept = _beta(seed_for(seed, Purpose.CUTMIX_SHARE), alpha, shape)[..., None]  # (*shape, 1)
    half = tf.cast(tf.cast(size, tf.float64) * tf.sqrt(1 - kept), tf.int32) // 2
    place = tf.random.stateless_uniform(
        (*shape, 2), seed_for(seed, Purpose.CUTMIX_BOX), dtype=tf.float64
    )
    centre = tf.cast(place * tf.cast(size, tf.float64), tf.int32)
    first, last = tf.maximum(centre - half, 0), tf.minimum(centre + half, size)
    return first[..., 0], last[..., 0], first[..., 1], last[..., 1]


def _mix_elements(images, labels, seed, mixup_alpha, cutmix_alpha):
    """`mix` with a decision, lambda and box for each image."""
    count, height, width = images.shape[:3]
    by_cutmix = tf.fill([count], cutmix_alpha > 0)
    if mixup_alpha > 0 and cutmix_alpha > 0:
        by_cutmix = tf.random.stateless_uniform((count,), seed_for(seed, Purpose.MIX_CHOICE)) < 0.5
    # How much of each pixel is kept: a number for MixUp, ones and zeros for CutMix.
    kept = tf.zeros((count, height, width))
    if mixup_alpha > 0:
        shares = _beta(seed_for(seed, Purpose.MIXUP_SHARE), mixup_alpha, (count,))
        kept += tf.cast(shares, tf.float32)[:, None, None]
    if cutmix_alpha > 0:
        boxes = cutmix_box(height, width, seed, cutmix_alpha, (count,))
        kept = tf.where(by_cutmix[:, None, None], 1 - _mask(boxes, height, width), kept)
    share = tf.reduce_mean(kept, axis=(1, 2))[:, None]  # (B, 1)
    kept = kept[..., None]  # (B, H, W, 1)
    images = kept * images + (1 - kept) * tf.reverse(images, axis=[0])
    return images, share * labels + (1 - share) * tf.reverse(labels, axis=[0])


def _mask(boxes, height, width):
    """Boxes (B,) x 4 as float32 (B, H, W), 1 within."""
    top, bottom, left, right = (edge[:, None] for edge in boxes)
    rows, columns = tf.range(height), tf.range(width)
    inside = ((rows >= top) & (rows < bottom))[:, :, None] & (
        (columns >= left) & (columns < right)
    )[:, None, :]
    return tf.cast(inside, tf.float32)


def _beta(seed, alpha, shape=()):
    """Draws from Beta(alpha, alpha), float64, as ratios of two Gamma draws."""
    alpha = tf.constant(alpha, tf.float64)
    gammas = tf.random.stateless_gamma((2, *shape), seed, alpha, dtype=tf.float64)
    # A minute alpha underflows.
    return tf.math.divide_no_nan(gammas[0], tf.reduce_sum(gammas, axis=0))
