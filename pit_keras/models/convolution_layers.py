"""The parts of the convolutional networks. Shapes: B images, H and W sides of a map, C channels."""

import keras
from keras import layers, ops

from pit_keras.models.classifier import classifier_activation
from pit_keras.models.initializers import kaiming_normal

# PyTorch's momentum of 0.1 is the share of the new statistics, Keras' 0.9 that of the old ones.
NORM_EPSILON, NORM_MOMENTUM = 1e-5, 0.9


@keras.saving.register_keras_serializable(package="pit_keras")
class SymmetricConv2D(layers.Conv2D):
    """A `Conv2D` of an odd kernel that pads half the kernel on each side, as PyTorch does.

    Keras' "same" does so where the stride is 1, but not where it is 2. Padding is no layer of its
    own, so that all variants of a network have the same layers, as weight files need.

    Groups are convolved one by one: TensorFlow has no kernel for them on the CPU, and the gradient
    of XLA's, which Keras takes instead, needs 13 to 90 times as long (RegNetY-16GF, two cores).
    """

    def convolution_op(self, inputs, kernel):
        padding = "same"
        if max(self.strides) > 1:
            sides = [(size // 2, size // 2) for size in self.kernel_size]
            inputs, padding = ops.pad(inputs, [(0, 0), *sides, (0, 0)]), "valid"
        groups = [(inputs, kernel)]
        if self.groups > 1:
            groups = zip(
                *(ops.split(x, self.groups, axis=-1) for x in (inputs, kernel)), strict=True
            )
        outputs = [
            ops.conv(part, weights, self.strides, padding, "channels_last", self.dilation_rate)
            for part, weights in groups
        ]
        return outputs[0] if self.groups == 1 else ops.concatenate(outputs, axis=-1)


def convolution(x, channels, kernel_size, name, *, stride=1, dilation=1, groups=1):
    """A convolution without bias, padded but for patches: (B, H, W, C) -> (B, h, w, channels)."""
    patches = stride == kernel_size
    layer = layers.Conv2D if patches else SymmetricConv2D
    return layer(
        channels,
        kernel_size,
        strides=stride,
        padding="valid" if patches else "same",
        data_format="channels_last",
        dilation_rate=dilation,
        groups=groups,
        use_bias=False,
        kernel_initializer=kaiming_normal(kernel_size**2 * channels / groups),
        name=name,
    )(x)


def normalization(x, name, zero=False):
    """Batch normalisation; with `zero` its scale begins at 0, so that its branch begins silent."""
    return layers.BatchNormalization(
        epsilon=NORM_EPSILON,
        momentum=NORM_MOMENTUM,
        gamma_initializer="zeros" if zero else "ones",
        name=name,
    )(x)


def residual_network(variant, settings, bottleneck, initializers):
    """Builds a residual network: images (B, H, W, channels) -> logits (B, classes).

    Each stage ends in a layer `stage1`, `stage2`, ..., the stage's feature map (B, h, w, C).
    Without its top the network gives the last map's mean (B, C).

    Args:
        bottleneck: A block's branch, before the sum: a function of its input (B, H, W, C), width,
            stride, dilation and name -> (B, h, w, width).
        initializers: The classifier's, as keyword arguments.
    """
    settings.require("attention_drop_rate", 0, "There is no attention")
    if not settings.include_top:
        settings.require("drop_rate", 0, "The classifier, which it is for, is left out")
    variant.grids(settings.input_shape[:2])  # refuses an image that is too small
    images = keras.Input(settings.input_shape, name="images")
    sizes = variant.depths, variant.widths(), variant.strides(), variant.dilations()
    drop_path_rates = settings.drop_path_rates(sum(variant.depths))
    stages = zip(*sizes, strict=True)
    x = residual_stages(variant.stem(images), stages, drop_path_rates, bottleneck)
    x = layers.GlobalAveragePooling2D("channels_last", dtype="float32", name="pooled")(x)
    if settings.include_top:
        x = layers.Dropout(settings.drop_rate, dtype="float32", name="head_drop")(x)
        x = layers.Dense(settings.classes, **initializers, dtype="float32", name="head")(x)
        x = classifier_activation(x, settings)
    return keras.Model(images, x, name=settings.name)


def residual_stages(x, stages, drop_path_rates, bottleneck):
    """All blocks: `stages` has a depth, width, stride and dilation for each stage.

    Only a stage's first block strides, only the others are dilated.
    """
    drop_path_rates = iter(drop_path_rates)
    for stage, (depth, width, first_stride, dilation) in enumerate(stages, 1):
        for block in range(1, depth + 1):
            name = f"stage{stage}_block{block}"
            stride = first_stride if block == 1 else 1
            branch = bottleneck(x, width, stride, 1 if block == 1 else dilation, name)
            if stride > 1 or x.shape[-1] != width:
                x = convolution(x, width, 1, f"{name}_shortcut_conv", stride=stride)
                x = normalization(x, f"{name}_shortcut_norm")
            # Drop path leaves out an image's branch: the mask is the same for the whole map.
            drop_path = {"rate": next(drop_path_rates), "noise_shape": (None, 1, 1, 1)}
            branch = layers.Dropout(**drop_path, name=f"{name}_drop_path")(branch)
            x = layers.Add(name=f"{name}_add")([x, branch])
            x = layers.ReLU(name=f"stage{stage}" if block == depth else f"{name}_output")(x)
    return x


def halved_grids(image_size, halvings):
    """Height and width of each stage's map, 56 -> 28 -> 14 -> 7 at 224; None stays None.

    `halvings` says how often each stage, the first with the stem, halves its input, rounding up.
    """
    grids, grid = [], tuple(image_size)
    for times in halvings:
        for _ in range(times):
            if any(side is not None and side < 2 for side in grid):
                least = 2 ** (sum(halvings) - 1) + 1
                raise ValueError(
                    f"An image of {image_size[0]} x {image_size[1]} pixels is too small to be "
                    f"halved {sum(halvings)} times; use {least} x {least} or more."
                )
            grid = tuple(None if side is None else (side + 1) // 2 for side in grid)
        grids.append(grid)
    return tuple(grids)
