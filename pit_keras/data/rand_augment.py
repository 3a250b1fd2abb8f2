"""RandAugment (Cubuk et al., 2020) as DeiT and PiT train with it: timm's policy with increasing
severity, `rand-m9-mstd0.5-inc1`.
"""

import dataclasses
import functools

import tensorflow as tf

from pit_keras.data import image_operations as operations
from pit_keras.data.seeds import Purpose, seed_for

MAX_LEVEL = 10.0  # magnitudes are shares of it


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """A policy."""

    magnitude: float = 9.0  # severity of the operations, 0 to 10
    std: float = 0.5  # of the magnitude, which is drawn for each operation and clipped to 0 to 10
    layers: int = 2  # operations drawn for an image, with replacement
    probability: float = 0.5  # that an operation, once drawn, is applied

    def __post_init__(self):
        if not (0 <= self.magnitude <= MAX_LEVEL and self.std >= 0 and self.layers >= 0):
            raise ValueError(f"{self} needs a magnitude from 0 to 10, std and layers not negative.")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"{self} needs a probability in [0, 1].")


def rand_augment(image, seed, policy, fill):
    """Applies randomly drawn operations to an image, uint8 (H, W, 3).

    `fill` is the colour where an operation leaves the image, three levels 0..255.
    """
    choices, levels, signs = draws(seed, policy)
    for layer in range(policy.layers):
        branches = [
            functools.partial(_applied, operation, image, levels[layer], signs[layer], fill)
            for operation in _compiled_operations()
        ]
        # One more branch, at the end, leaves the image as it is.
        branches.append(functools.partial(tf.identity, image))
        image = tf.switch_case(choices[layer], branches)
    return image


def draws(seed, policy):
    """The operations of one image, three tensors (layers,).

    These are places in `OPERATIONS`, int32, or their number for none; levels, float32 in 0..1; and
    signs, -1.0 or 1.0.
    """
    uniform = tf.random.stateless_uniform((3, policy.layers), seed_for(seed, Purpose.OPERATIONS))
    choice, chance, side = tf.unstack(uniform)
    index = tf.cast(choice * len(OPERATIONS), tf.int32)
    normal = tf.random.stateless_normal((policy.layers,), seed_for(seed, Purpose.MAGNITUDES))
    magnitudes = policy.magnitude + policy.std * normal
    return (
        tf.where(chance < policy.probability, index, len(OPERATIONS)),
        tf.clip_by_value(magnitudes, 0.0, MAX_LEVEL) / MAX_LEVEL,
        tf.where(side < 0.5, 1.0, -1.0),
    )


def _applied(operation, image, level, sign, fill):
    return tf.ensure_shape(operation(image, level, sign, fill), image.shape)


@functools.cache
def _compiled_operations():
    """The operations, each fused by XLA into a few loops: together three times as fast.

    `Equalize` and `Rotate` are compiled in parts already.
    """
    return [
        operation
        if name in ("Equalize", "Rotate")
        else tf.function(operation, jit_compile=True, reduce_retracing=True, autograph=False)
        for name, operation in OPERATIONS.items()
    ]


def _whole(value):
    return tf.cast(value, tf.int32)  # the fraction cut off


def _enhancement(level, sign):
    return tf.maximum(0.1, 1.0 + sign * 0.9 * level)


# Each takes the image, a level in 0..1, a sign and the fill colour.
OPERATIONS = {
    "AutoContrast": lambda image, level, sign, fill: operations.autocontrast(image),
    "Equalize": lambda image, level, sign, fill: operations.equalize(image),
    "Invert": lambda image, level, sign, fill: operations.invert(image),
    "Rotate": lambda image, level, sign, fill: operations.rotate(image, sign * 30 * level, fill),
    "PosterizeIncreasing": lambda image, level, sign, fill: operations.posterize(
        image, 4 - _whole(4 * level)
    ),
    "SolarizeIncreasing": lambda image, level, sign, fill: operations.solarize(
        image, 256 - _whole(256 * level)
    ),
    "SolarizeAdd": lambda image, level, sign, fill: operations.solarize_add(
        image, _whole(110 * level)
    ),
    "ColorIncreasing": lambda image, level, sign, fill: operations.adjust_color(
        image, _enhancement(level, sign)
    ),
    "ContrastIncreasing": lambda image, level, sign, fill: operations.adjust_contrast(
        image, _enhancement(level, sign)
    ),
    "BrightnessIncreasing": lambda image, level, sign, fill: operations.adjust_brightness(
        image, _enhancement(level, sign)
    ),
    "SharpnessIncreasing": lambda image, level, sign, fill: operations.adjust_sharpness(
        image, _enhancement(level, sign)
    ),
    "ShearX": lambda image, level, sign, fill: operations.shear_x(image, sign * 0.3 * level, fill),
    "ShearY": lambda image, level, sign, fill: operations.shear_y(image, sign * 0.3 * level, fill),
    "TranslateXRel": lambda image, level, sign, fill: operations.translate_x(
        image, sign * 0.45 * level, fill
    ),
    "TranslateYRel": lambda image, level, sign, fill: operations.translate_y(
        image, sign * 0.45 * level, fill
    ),
}
