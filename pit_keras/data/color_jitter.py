"""Random brightness, contrast and saturation of one image, as a pure function of (image, seed)."""

import functools

import tensorflow as tf

from pit_keras.data import image_operations as operations
from pit_keras.data.seeds import Purpose, seed_for

ADJUSTMENTS = (operations.adjust_brightness, operations.adjust_contrast, operations.adjust_color)


def color_jitter(image, seed, strength):
    """Changes brightness, contrast and saturation by random factors, in a random order.

    `image` is uint8 (H, W, 3); factors are uniform in [max(0, 1 - strength), 1 + strength].

    This is torchvision's `ColorJitter(strength, strength, strength)`, which timm's
    `create_transform(color_jitter=strength)` applies to the cropped and flipped image in 8 bits.
    With an auto-augment policy such as RandAugment, timm silently leaves it out; here the
    configuration refuses the two together.
    """
    if strength == 0:
        return image
    return tf.ensure_shape(_compiled_adjust(image, *draws(seed, strength)), image.shape)


def draws(seed, strength):
    """The factors of the `ADJUSTMENTS`, float32 (3,), and their order, int32 (3,)."""
    shares, ranks = tf.unstack(
        tf.random.stateless_uniform((2, len(ADJUSTMENTS)), seed_for(seed, Purpose.COLOR_JITTER))
    )
    low, high = max(0.0, 1 - strength), 1 + strength
    return low + (high - low) * shares, tf.argsort(ranks)


def adjust(image, factors, order):
    """Applies the `ADJUSTMENTS` one after the other in 8 bits."""
    for place in range(len(ADJUSTMENTS)):
        branches = [
            functools.partial(adjustment, image, factors[kind])
            for kind, adjustment in enumerate(ADJUSTMENTS)
        ]
        image = tf.ensure_shape(tf.switch_case(order[place], branches), image.shape)
    return image


# XLA rounds a product and a sum once, not twice, which moves some levels by one.
_compiled_adjust = operations.compiled(adjust)
