"""RegNetY (Radosavovic et al., arXiv 2003.13678): the teacher that DeiT and PiT are distilled from.
The whole family is the table `VARIANTS`.
"""

import dataclasses
import functools

from keras import initializers, layers

from pit_keras.models.convolution_layers import (
    convolution,
    halved_grids,
    normalization,
    residual_network,
)
from pit_keras.models.initializers import kaiming_normal


@dataclasses.dataclass(frozen=True)
class RegNetY:
    """One variant. Its fields are also the overrides that `create_model` accepts."""

    stage_widths: tuple[int, ...]  # channels of each stage
    depths: tuple[int, ...]  # blocks of each stage
    group_width: int  # channels of each group of the 3 x 3 convolutions
    stem_width: int = 32
    squeeze_ratio: float = 0.25  # channels of a squeeze, over those of its block's input

    def widths(self):
        """Channels of each stage."""
        return self.stage_widths

    def strides(self):
        """Stride of each stage's first block."""
        return (2,) * len(self.depths)

    def dilations(self):
        """Dilation of the 3 x 3 convolutions in each stage's blocks."""
        return (1,) * len(self.depths)

    def grids(self, image_size):
        """Height and width of each stage's map, 56 -> 28 -> 14 -> 7 at 224; None stays None."""
        return halved_grids(image_size, (2, *(1 for _ in self.depths[1:])))

    def stem(self, images):
        """A convolution of stride 2: (B, H, W, C) -> (B, h, w, stem_width)."""
        x = convolution(images, self.stem_width, 3, "stem_conv", stride=2)
        return layers.ReLU(name="stem")(normalization(x, "stem_norm"))


# RegNetY-16GF: table 4 of the paper; DeiT's and PiT's teacher.
VARIANTS = {
    "regnety_160": RegNetY((224, 448, 1232, 3024), depths=(2, 4, 11, 1), group_width=112),
}


def build(variant, settings):
    """See `residual_network`.

    As in timm, each block's last normalisation begins with scale zero, so that the network begins
    with its shortcuts alone.
    """
    classifier = {"kernel_initializer": initializers.RandomNormal(stddev=0.01)}
    bottleneck = functools.partial(_bottleneck, variant)
    return residual_network(variant, settings, bottleneck, classifier)


def _bottleneck(variant, x, width, stride, dilation, name):
    groups, rest = divmod(width, variant.group_width)
    if rest:
        raise ValueError(f"group_width={variant.group_width} does not divide {width} channels.")
    squeezed = max(1, round(x.shape[-1] * variant.squeeze_ratio))
    x = normalization(convolution(x, width, 1, f"{name}_conv1"), f"{name}_norm1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = convolution(x, width, 3, f"{name}_conv2", stride=stride, dilation=dilation, groups=groups)
    x = layers.ReLU(name=f"{name}_relu2")(normalization(x, f"{name}_norm2"))
    x = _squeeze_excitation(x, squeezed, name)
    x = convolution(x, width, 1, f"{name}_conv3")
    return normalization(x, f"{name}_norm3", zero=True)


def _squeeze_excitation(x, squeezed, name):
    """Each channel times a factor computed from the map's mean, (B, H, W, C) -> (B, H, W, C)."""

    def factors(values, channels, activation, part):
        initial = kaiming_normal(channels)
        return layers.Conv2D(
            channels,
            1,
            data_format="channels_last",
            activation=activation,
            kernel_initializer=initial,
            name=f"{name}_{part}",
        )(values)

    # In float32, since a sum over a large map can exceed float16.
    mean = layers.GlobalAveragePooling2D(
        "channels_last", keepdims=True, dtype="float32", name=f"{name}_squeeze_mean"
    )(x)  # (B, 1, 1, C)
    excited = factors(factors(mean, squeezed, "relu", "squeeze"), x.shape[-1], "sigmoid", "excite")
    return layers.Multiply(name=f"{name}_excited")([x, excited])
