"""ResNet-50 (He et al., arXiv 1512.03385) with and without pooling: section 3.1 of the PiT paper.
The whole family is the table `VARIANTS`.
"""

import dataclasses

from keras import layers

from pit_keras.models.convolution_layers import (
    convolution,
    halved_grids,
    normalization,
    residual_network,
)
from pit_keras.models.initializers import linear_initializers
from pit_keras.models.patches import is_dilated, patch_grid

EXPANSION = 4  # channels of a bottleneck's output over those that it computes with


@dataclasses.dataclass(frozen=True)
class ResNet:
    """A ResNet of bottlenecks. Its fields are also the overrides that `create_model` accepts.

    It is torchvision's network, "v1.5": a block halves in its 3 x 3 convolution. With half the
    natural `output_stride`, 16 instead of 32, the last stage does not halve and is dilated instead,
    for dense prediction, as DETR's DC5. For small images a stem with `stem_stride=2` has no max
    pooling, with 1 no stride either. The weights are the same in all these forms.
    """

    base_width: int  # channels that the first stage computes with, and the stem's
    depths: tuple[int, ...] = (3, 4, 6, 3)  # blocks of each stage
    width_multipliers: tuple[int, ...] = (1, 2, 4, 8)  # of each stage, over the base width
    stem_stride: int = 4  # pixels between the positions of the first stage's map: 4, 2 or 1
    output_stride: int | None = None  # pixels between the last map's positions; None for the most

    def widths(self):
        """Channels of each stage's output."""
        return tuple(EXPANSION * self.base_width * times for times in self.width_multipliers)

    def strides(self):
        """Stride of each stage's first block."""
        if self.stem_stride not in (4, 2, 1):
            raise ValueError(f"stem_stride of a ResNet must be 4, 2 or 1; got {self.stem_stride}.")
        reduction = f"stage, for a stem_stride of {self.stem_stride}"
        dilated = is_dilated(self.output_stride, 8 * self.stem_stride, reduction)
        return 1, 2, 2, 1 if dilated else 2

    def dilations(self):
        """Dilation of the 3 x 3 convolutions in each stage's blocks, but for the first block."""
        return 1, 1, 1, 2 // self.strides()[-1]

    def grids(self, image_size):
        """Height and width of each stage's map, 56 -> 28 -> 14 -> 7 at 224; None stays None."""
        first, *others = (stride // 2 for stride in self.strides())
        of_stem = self.stem_stride // 2  # 4, 2, 1 pixels are 2, 1, 0 halvings
        return halved_grids(image_size, (of_stem + first, *others))

    def stem(self, images):
        """A convolution and a max pooling of stride 2: (B, H, W, C) -> (B, h, w, width)."""
        stride = min(self.stem_stride, 2)
        x = convolution(images, self.base_width, 7, "stem_conv", stride=stride)
        x = layers.ReLU(name="stem")(normalization(x, "stem_norm"))
        if self.stem_stride < 4:
            return x
        # Nothing is below 0 after a ReLU.
        x = layers.ZeroPadding2D(1, data_format="channels_last", name="stem_pool_padding")(x)
        return layers.MaxPooling2D(3, 2, data_format="channels_last", name="stem_pool")(x)


@dataclasses.dataclass(frozen=True)
class ResNetWithoutPooling:
    """A ResNet of ViT's dimensions: one grid and one number of channels from the stem to the end.

    The authors released no code for it. That its channels do not grow is our reading of figure
    1(b); with `width_multipliers=(1, 2, 4, 8)` and a smaller `base_width` they do. The stem, a
    patch convolution with normalisation and ReLU, is our choice too. The default width makes it as
    costly as ResNet-50: 4.11 against 4.09 G multiply-accumulates.
    """

    base_width: int  # channels that a block computes with
    depths: tuple[int, ...] = (3, 4, 6, 3)
    width_multipliers: tuple[int, ...] = (1, 1, 1, 1)
    patch_size: int = 16

    widths = ResNet.widths

    def strides(self):
        """Stride of each stage's first block."""
        return (1,) * len(self.depths)

    dilations = strides

    def grids(self, image_size):
        """Height and width of each stage's map, 14 x 14 at 224 in all of them; None stays None."""
        return (patch_grid(image_size, self.patch_size, self.patch_size),) * len(self.depths)

    def stem(self, images):
        """Patches side by side, as wide as the first stage: (B, H, W, C) -> (B, h, w, width)."""
        width, size = self.widths()[0], self.patch_size
        x = convolution(images, width, size, "stem_conv", stride=size)
        return layers.ReLU(name="stem")(normalization(x, "stem_norm"))


# Section 3.1 and figure 2.
VARIANTS = {
    "resnet50": ResNet(base_width=64),
    "resnet50_no_pooling": ResNetWithoutPooling(base_width=272),
}


def build(variant, settings):
    """See `residual_network`; convolutions, scales and classifier begin as torchvision's do."""
    classifier = linear_initializers("torch_default", variant.widths()[-1])
    return residual_network(variant, settings, _bottleneck, classifier)


def _bottleneck(x, width, stride, dilation, name):
    inner = width // EXPANSION
    x = normalization(convolution(x, inner, 1, f"{name}_conv1"), f"{name}_norm1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = convolution(x, inner, 3, f"{name}_conv2", stride=stride, dilation=dilation)
    x = layers.ReLU(name=f"{name}_relu2")(normalization(x, f"{name}_norm2"))
    return normalization(convolution(x, width, 1, f"{name}_conv3"), f"{name}_norm3")
