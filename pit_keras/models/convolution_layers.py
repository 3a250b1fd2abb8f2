"""What the convolutional networks are made of. Everything is `channels_last` and Keras alone.

Shapes: B images, H and W sides of a map, C channels.
"""

import keras
from keras import layers, ops

from pit_keras.models.initializers import kaiming_normal

# PyTorch's momentum of 0.1 is the share of the new statistics, Keras' 0.9 that of the old ones.
NORM_EPSILON, NORM_MOMENTUM = 1e-5, 0.9


@keras.saving.register_keras_serializable(package="pit_keras")
class SymmetricConv2D(layers.Conv2D):
    """A `Conv2D` of an odd kernel whose padding is half the kernel on each side, as PyTorch's is.

    Keras' "same" is that too where the stride is 1, but not where it is 2. Zeros are added here and
    not in a layer of their own so that all variants of a network have the same layers in the same
    order, by which Keras' weight files go.

    Groups are convolved one by one; the kernel and the numbers are those of `Conv2D`. TensorFlow
    has no kernel for groups on the CPU, and XLA's, which Keras takes instead, needs 13 to 90 times
    as long for the gradient (RegNetY-16GF's four widths, two cores).
    """

    def convolution_op(self, inputs, kernel):
        padding = "same"
        if max(self.strides) > 1:
            sides = [(size // 2, size // 2) for size in self.kernel_size]
            inputs, padding = ops.pad(inputs, [(0, 0), *sides, (0, 0)]), "valid"
        groups = zip(
            ops.split(inputs, self.groups, axis=-1) if self.groups > 1 else [inputs],
            ops.split(kernel, self.groups, axis=-1) if self.groups > 1 else [kernel],
            strict=True,
        )
        outputs = [
            ops.conv(part, weights, self.strides, padding, dilation_rate=self.dilation_rate)
            for part, weights in groups
        ]
        return outputs[0] if self.groups == 1 else ops.concatenate(outputs, axis=-1)


def convolution(x, channels, kernel_size, name, *, stride=1, dilation=1, groups=1):
    """A convolution without bias, (B, H, W, C) -> (B, h, w, channels).

    Patches side by side (a stride as large as the kernel) are not padded, all others symmetrically.
    """
    patches = stride == kernel_size
    layer = layers.Conv2D if patches else SymmetricConv2D
    return layer(
        channels,
        kernel_size,
        strides=stride,
        padding="valid" if patches else "same",
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


def projected(x, channels, stride, block_name):
    """A block's shortcut: its input, or a 1 x 1 convolution of it where the shape changes."""
    if stride == 1 and x.shape[-1] == channels:
        return x
    x = convolution(x, channels, 1, f"{block_name}_shortcut_conv", stride=stride)
    return normalization(x, f"{block_name}_shortcut_norm")


def residual(shortcut, branch, drop_path_rate, block_name, output_name):
    """ReLU of a shortcut plus a branch, which is left out for an image with `drop_path_rate`."""
    branch = layers.Dropout(
        drop_path_rate, noise_shape=(None, 1, 1, 1), name=f"{block_name}_drop_path"
    )(branch)
    x = layers.Add(name=f"{block_name}_add")([shortcut, branch])
    return layers.ReLU(name=output_name)(x)


def block_names(stage, depth):
    """Names of a stage's blocks and of their outputs; the last output's is the stage's, `stage1`.

    `model.get_layer("stage1").output` is then the stage's feature map (B, h, w, C).
    """
    blocks = [f"stage{stage}_block{block}" for block in range(1, depth + 1)]
    outputs = [*(f"{name}_output" for name in blocks[:-1]), f"stage{stage}"]
    return list(zip(blocks, outputs, strict=True))


def pooled_classifier(feature_map, settings, initializers):
    """The last map (B, h, w, C) -> logits (B, classes), in float32 whatever the precision.

    Without the top it is the map's mean (B, C).

    Args:
        feature_map: The last stage's output.
        settings: `pit_keras.models.registry.Settings`.
        initializers: Those of the classifier, as keyword arguments of `keras.layers.Dense`.
    """
    x = layers.GlobalAveragePooling2D(dtype="float32", name="pooled")(feature_map)
    if not settings.include_top:
        return x
    x = layers.Dropout(settings.drop_rate, dtype="float32", name="head_drop")(x)
    x = layers.Dense(settings.classes, **initializers, dtype="float32", name="head")(x)
    if settings.classifier_activation is None:
        return x
    return layers.Activation(settings.classifier_activation, dtype="float32", name="predictions")(x)


def refuse_what_has_no_meaning(settings):
    """Raises a ValueError for a dropout rate that a convolutional network has no place for."""
    if settings.attention_drop_rate:
        raise ValueError(
            f"{settings.name} has no attention, so attention_drop_rate must be 0; got "
            f"{settings.attention_drop_rate}."
        )
    if settings.drop_rate and not settings.include_top:
        raise ValueError(
            f"drop_rate of {settings.name} is the dropout before the classifier, which "
            f"include_top=False leaves out; it must be 0, got {settings.drop_rate}."
        )


def halved_grids(image_size, halvings):
    """Height and width of each stage's map, 56 -> 28 -> 14 -> 7 at 224; None stays None.

    Args:
        image_size: Height and width of the images.
        halvings: How often each stage halves the map that it is given, rounding up; the stem
            counts with the first.

    Raises:
        ValueError: If a side of 1 would have to be halved.
    """
    grids, grid = [], tuple(image_size)
    for times in halvings:
        for _ in range(times):
            if any(side is not None and side < 2 for side in grid):
                raise ValueError(
                    f"An image of {image_size[0]} x {image_size[1]} pixels is too small: it would "
                    f"have to be halved {sum(halvings)} times; use one of at least "
                    f"{2 ** (sum(halvings) - 1) + 1} x {2 ** (sum(halvings) - 1) + 1}."
                )
            grid = tuple(None if side is None else (side + 1) // 2 for side in grid)
        grids.append(grid)
    return tuple(grids)
