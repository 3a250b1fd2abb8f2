"""RandAugment (Cubuk et al., 2020) as DeiT and PiT train with it: timm's policy with increasing
severity, `rand-m9-mstd0.5-inc1`.
"""

import functools

import tensorflow as tf

from pit_keras.data import image_operations as operations
from pit_keras.data.seeds import Purpose, seed_for

MAX_LEVEL = 10.0  # magnitudes are shares of it
LAYERS = 2  # operations drawn for an image, with replacement
PROBABILITY = 0.5  # that an operation, once drawn, is applied


def rand_augment(image, seed, magnitude, std, fill):
    """Applies randomly drawn operations to an image, uint8 (H, W, 3).

    Args:
        magnitude: severity of the operations, 0 to 10.
        std: of the magnitude, which is drawn for each operation and clipped to 0 to 10.
        fill: the colour where an operation leaves the image, three levels 0..255.
    """
    choices, levels, signs = draws(seed, magnitude, std)
    for layer in range(LAYERS):
        arguments = image, levels[layer], signs[layer], fill
        branches = [functools.partial(each, *arguments) for each in _compiled]
        # One more branch, at the end, leaves the image as it is.
        branches.append(functools.partial(tf.identity, image))
        image = tf.ensure_shape(tf.switch_case(choices[layer], branches), image.shape)
    return image


def draws(seed, magnitude, std):
    """The operations of one image, three tensors (`LAYERS`,).

    These are places in `OPERATIONS`, int32, or their number for none; levels, float32 in 0..1; and
    signs, -1.0 or 1.0.
    """
    uniform = tf.random.stateless_uniform((3, LAYERS), seed_for(seed, Purpose.OPERATIONS))
    choice, chance, side = tf.unstack(uniform)
    index = tf.cast(choice * len(OPERATIONS), tf.int32)
    normal = tf.random.stateless_normal((LAYERS,), seed_for(seed, Purpose.MAGNITUDES))
    magnitudes = magnitude + std * normal
    return (
        tf.where(chance < PROBABILITY, index, len(OPERATIONS)),
        tf.clip_by_value(magnitudes, 0.0, MAX_LEVEL) / MAX_LEVEL,
        tf.where(side < 0.5, 1.0, -1.0),
    )


def _whole(value):
    return tf.cast(value, tf.int32)  # the fraction cut off


def _enhancement(adjust):
    return lambda image, level, sign, fill: adjust(image, tf.maximum(0.1, 1.0 + sign * 0.9 * level))


def _movement(move, most, **axis):
    return lambda image, level, sign, fill: move(image, sign * most * level, fill, **axis)


# Each takes the image, a level in 0..1, a sign and the fill colour.
OPERATIONS = {
    "AutoContrast": lambda image, level, sign, fill: operations.autocontrast(image),
    "Equalize": lambda image, level, sign, fill: operations.equalize(image),
    "Invert": lambda image, level, sign, fill: operations.invert(image),
    "Rotate": _movement(operations.rotate, 30),
    "PosterizeIncreasing": lambda image, level, sign, fill: operations.posterize(
        image, 4 - _whole(4 * level)
    ),
    "SolarizeIncreasing": lambda image, level, sign, fill: operations.solarize(
        image, 256 - _whole(256 * level)
    ),
    "SolarizeAdd": lambda image, level, sign, fill: operations.solarize_add(
        image, _whole(110 * level)
    ),
    "ColorIncreasing": _enhancement(operations.adjust_color),
    "ContrastIncreasing": _enhancement(operations.adjust_contrast),
    "BrightnessIncreasing": _enhancement(operations.adjust_brightness),
    "SharpnessIncreasing": _enhancement(operations.adjust_sharpness),
    "ShearX": _movement(operations.shear, 0.3, axis=1),
    "ShearY": _movement(operations.shear, 0.3, axis=0),
    "TranslateXRel": _movement(operations.translate, 0.45, axis=1),
    "TranslateYRel": _movement(operations.translate, 0.45, axis=0),
}
_compiled = [
    # These two are compiled in parts already.
    operation if name in ("Equalize", "Rotate") else operations.compiled(operation)
    for name, operation in OPERATIONS.items()
]
