"""RegNetY (Radosavovic et al., arXiv 2003.13678): the teacher that DeiT and PiT are distilled from.
The whole family is the table `VARIANTS`.
"""

import dataclasses

import keras
from keras import initializers, layers

from pit_keras.models.convolution_layers import (
    block_names,
    convolution,
    halved_grids,
    normalization,
    pooled_classifier,
    projected,
    refuse_what_has_no_meaning,
    residual,
)
from pit_keras.models.initializers import kaiming_normal


@dataclasses.dataclass(frozen=True)
class RegNetY:
    """One variant. Its fields are also the overrides that `create_model` accepts."""

    stage_widths: tuple[int, ...]  # channels of each stage
    depths: tuple[int, ...]  # blocks of each stage
    group_width: int  # channels of each group of the 3 x 3 convolutions
    stem_width: int = 32
    squeeze_ratio: float = 0.25  # channels of a squeeze, over those that its block is given

    def widths(self):
        """Channels of each stage."""
        return self.stage_widths

    def grids(self, image_size):
        """Height and width of each stage's map, 56 -> 28 -> 14 -> 7 at 224; None stays None.

        Raises:
            ValueError: If the image is too small to be halved so often.
        """
        return halved_grids(image_size, (2, *(1 for _ in self.depths[1:])))


# RegNetY-16GF: table 4 of the paper; DeiT's and PiT's teacher.
VARIANTS = {
    "regnety_160": RegNetY((224, 448, 1232, 3024), depths=(2, 4, 11, 1), group_width=112),
}


def build(variant, settings):
    """Builds a RegNetY as a functional `keras.Model`; arguments and result as in `resnet.build`.

    Weights begin as timm's do: every block's last normalisation with scale zero, so that the
    network begins with its shortcuts alone.
    """
    refuse_what_has_no_meaning(settings)
    variant.grids(settings.input_shape[:2])  # refuses an image that is too small
    drop_path_rates = iter(settings.drop_path_rates(sum(variant.depths)))

    images = keras.Input(settings.input_shape, name="images")
    x = convolution(images, variant.stem_width, 3, "stem_conv", stride=2)
    x = layers.ReLU(name="stem")(normalization(x, "stem_norm"))
    for stage, (depth, width) in enumerate(zip(variant.depths, variant.widths(), strict=True), 1):
        for block, (name, output_name) in enumerate(block_names(stage, depth)):
            stride = 2 if block == 0 else 1
            branch = _bottleneck(x, width, stride, variant, name)
            shortcut = projected(x, width, stride, name)
            x = residual(shortcut, branch, next(drop_path_rates), name, output_name)
    classifier = {
        "kernel_initializer": initializers.RandomNormal(stddev=0.01),
        "bias_initializer": "zeros",
    }
    return keras.Model(images, pooled_classifier(x, settings, classifier), name=settings.name)


def _bottleneck(x, width, stride, variant, name):
    """A block's branch, before the sum: (B, H, W, C) -> (B, h, w, width)."""
    groups, rest = divmod(width, variant.group_width)
    if rest:
        raise ValueError(
            f"Groups of {variant.group_width} channels do not divide {width} channels."
        )
    squeezed = max(1, round(x.shape[-1] * variant.squeeze_ratio))
    x = normalization(convolution(x, width, 1, f"{name}_conv1"), f"{name}_norm1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = convolution(x, width, 3, f"{name}_conv2", stride=stride, groups=groups)
    x = layers.ReLU(name=f"{name}_relu2")(normalization(x, f"{name}_norm2"))
    x = _squeeze_excitation(x, squeezed, name)
    x = convolution(x, width, 1, f"{name}_conv3")
    return normalization(x, f"{name}_norm3", zero=True)


def _squeeze_excitation(x, squeezed, name):
    """Every channel times a factor that the map's mean decides: (B, H, W, C) -> (B, H, W, C)."""
    channels = x.shape[-1]
    # In float32, since a sum over a large map can exceed float16.
    mean = layers.GlobalAveragePooling2D(
        keepdims=True, dtype="float32", name=f"{name}_squeeze_mean"
    )(x)  # (B, 1, 1, C)
    factors = layers.Conv2D(
        squeezed,
        1,
        activation="relu",
        kernel_initializer=kaiming_normal(squeezed),
        name=f"{name}_squeeze",
    )(mean)
    factors = layers.Conv2D(
        channels,
        1,
        activation="sigmoid",
        kernel_initializer=kaiming_normal(channels),
        name=f"{name}_excite",
    )(factors)
    return layers.Multiply(name=f"{name}_excited")([x, factors])
