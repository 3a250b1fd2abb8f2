"""ResNet-50 (He et al., arXiv 1512.03385) with and without pooling: section 3.1 of the PiT paper.
The whole family is the table `VARIANTS`.
"""

import dataclasses

import keras
from keras import layers

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
from pit_keras.models.initializers import linear_initializers
from pit_keras.models.patches import patch_grid

EXPANSION = 4  # channels that a bottleneck puts out, for each that it computes with


@dataclasses.dataclass(frozen=True)
class ResNet:
    """A ResNet of bottlenecks. Its fields are also the overrides that `create_model` accepts.

    It is torchvision's network, "v1.5": a block halves in its 3 x 3 convolution. With half the
    natural `output_stride`, 16 instead of 32, the last stage keeps the map of the one before and is
    dilated instead, for dense prediction, as DETR's DC5 has it: all its 3 x 3 convolutions but the
    first block's have their taps two pixels apart.

    Small images want a stem that reduces less: with `stem_stride=2` it has no maximum, with 1 its
    convolution does not stride either. The weights are the same in all these forms.
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
        """Stride of each stage's first block.

        Raises:
            ValueError: If `stem_stride` is not 4, 2 or 1, or `output_stride` neither the natural
                one nor its half.
        """
        if self.stem_stride not in (4, 2, 1):
            raise ValueError(f"stem_stride of a ResNet must be 4, 2 or 1; got {self.stem_stride}.")
        natural = 8 * self.stem_stride
        whole = self.output_stride is None or type(self.output_stride) is int
        if not whole or self.output_stride not in (None, natural, natural // 2):
            raise ValueError(
                f"output_stride of a ResNet must be {natural}, or {natural // 2} to dilate the "
                f"last stage, for a stem_stride of {self.stem_stride}; got {self.output_stride!r}."
            )
        return 1, 2, 2, 1 if self.output_stride == natural // 2 else 2

    def dilations(self):
        """Dilation of the 3 x 3 convolutions in each stage's blocks, save the first block."""
        return 1, 1, 1, 2 // self.strides()[-1]

    def grids(self, image_size):
        """Height and width of each stage's map, 56 -> 28 -> 14 -> 7 at 224; None stays None.

        Raises:
            ValueError: If the image is too small to be halved so often.
        """
        first, *others = (stride // 2 for stride in self.strides())
        of_stem = self.stem_stride // 2  # 4, 2, 1 pixels are 2, 1, 0 halvings
        return halved_grids(image_size, (of_stem + first, *others))

    def stem(self, images):
        """A 7 x 7 convolution and a maximum, each of stride 2: (B, H, W, C) -> (B, h, w, width)."""
        stride = min(self.stem_stride, 2)
        x = convolution(images, self.base_width, 7, "stem_conv", stride=stride)
        x = layers.ReLU(name="stem")(normalization(x, "stem_norm"))
        if self.stem_stride < 4:
            return x
        x = layers.ZeroPadding2D(1, name="stem_pool_padding")(x)  # nothing is below 0 after a ReLU
        return layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)


@dataclasses.dataclass(frozen=True)
class ResNetWithoutPooling:
    """A ResNet of ViT's dimensions: one grid from the stem to the end, and one number of channels.

    The stem cuts the image into patches, 14 x 14 at 224, and no stage reduces any further. That the
    channels do not grow either is the reading of figure 1(b) taken here, of ViT's dimensions, in
    which neither changes; the authors released no code for this network. Where the channels are to
    grow as in ResNet-50, `width_multipliers=(1, 2, 4, 8)` with a smaller `base_width` gives that.
    The stem being a patch convolution with normalisation and ReLU is a choice too.

    The default width makes it as costly as ResNet-50: 4.11 against 4.09 G multiply-accumulates. Its
    fields are also the overrides that `create_model` accepts.
    """

    base_width: int  # channels that a block computes with
    depths: tuple[int, ...] = (3, 4, 6, 3)
    width_multipliers: tuple[int, ...] = (1, 1, 1, 1)
    patch_size: int = 16

    def widths(self):
        """Channels of each stage's output."""
        return tuple(EXPANSION * self.base_width * times for times in self.width_multipliers)

    def strides(self):
        """Stride of each stage's first block."""
        return (1,) * len(self.depths)

    def dilations(self):
        """Dilation of the 3 x 3 convolutions in each stage's blocks, save the first block."""
        return (1,) * len(self.depths)

    def grids(self, image_size):
        """Height and width of each stage's map, 14 x 14 at 224 in all of them; None stays None.

        Raises:
            ValueError: If the image is smaller than a patch.
        """
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
    """Builds a ResNet as a functional `keras.Model`.

    Convolutions, scales and the classifier begin as torchvision's do.

    Args:
        variant: A `ResNet` or a `ResNetWithoutPooling`.
        settings: `pit_keras.models.registry.Settings`, what is common to all models.

    Returns:
        A model from images (B, H, W, channels) to logits (B, classes). Each stage ends in a layer
        `stage1`, `stage2`, ... whose output is the stage's feature map (B, h, w, C).

    Raises:
        ValueError: For an image too small, or a dropout rate without a meaning here.
    """
    refuse_what_has_no_meaning(settings)
    variant.grids(settings.input_shape[:2])  # refuses an image that is too small
    drop_path_rates = iter(settings.drop_path_rates(sum(variant.depths)))
    stages = zip(
        variant.depths, variant.widths(), variant.strides(), variant.dilations(), strict=True
    )

    images = keras.Input(settings.input_shape, name="images")
    x = variant.stem(images)
    for stage, (depth, width, stride, dilation) in enumerate(stages, 1):
        for block, (name, output_name) in enumerate(block_names(stage, depth)):
            first = block == 0
            block_stride, block_dilation = (stride, 1) if first else (1, dilation)
            branch = _bottleneck(x, width, block_stride, block_dilation, name)
            shortcut = projected(x, width, block_stride, name)
            x = residual(shortcut, branch, next(drop_path_rates), name, output_name)
    outputs = pooled_classifier(x, settings, linear_initializers("torch_default", x.shape[-1]))
    return keras.Model(images, outputs, name=settings.name)


def _bottleneck(x, width, stride, dilation, name):
    """A block's branch, before the sum: (B, H, W, C) -> (B, h, w, width)."""
    inner = width // EXPANSION
    x = layers.ReLU(name=f"{name}_relu1")(
        normalization(convolution(x, inner, 1, f"{name}_conv1"), f"{name}_norm1")
    )
    x = convolution(x, inner, 3, f"{name}_conv2", stride=stride, dilation=dilation)
    x = layers.ReLU(name=f"{name}_relu2")(normalization(x, f"{name}_norm2"))
    return normalization(convolution(x, width, 1, f"{name}_conv3"), f"{name}_norm3")
