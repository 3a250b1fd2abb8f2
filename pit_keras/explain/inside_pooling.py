"""A token pooling looked at from inside (section 3.2, figure 4): what goes in, what comes out."""

import dataclasses

import keras
import numpy as np
from keras import ops

from pit_keras.models.classifier import check_functional
from pit_keras.models.pooling import TokenPooling
from pit_keras.models.tokens import pooled_grid


@dataclasses.dataclass(frozen=True)
class PoolingStep:
    """One token pooling of some images, as arrays.

    Attributes:
        tokens_before, tokens_after: Class (and distillation) tokens, (B, T, C) and (B, T, m * C).
        map_before, map_after: Spatial tokens as maps, (B, H, W, C) and (B, h, w, m * C).
        kernel: The depth-wise filters, (3, 3, C, m). Channel c of the map before becomes the
            channels m * c to m * c + m - 1 of the map after, by the filters of c.
    """

    tokens_before: np.ndarray
    map_before: np.ndarray
    tokens_after: np.ndarray
    map_after: np.ndarray
    kernel: np.ndarray


def pooling_step(model, stage, images):
    """What the token pooling after a stage makes of images.

    Args:
        model: A PiT.
        stage: The stage before the pooling, counted from 1.
        images: Normalised, (B, H, W, 3).

    Raises:
        ValueError: If the model is not functional, or has no pooling after this stage.
    """
    check_functional(model, "pooling_step")
    pooling = pooling_after(model, stage)
    reader = keras.Model(model.input, [*pooling.input, pooling.output])
    tokens, before, joined = map(ops.convert_to_numpy, reader(images, training=False))
    after = joined[:, tokens.shape[1] :]  # (B, T + h * w, m * C) -> (B, h * w, m * C)
    grid = pooled_grid(before.shape[1:3], pooling.stride)
    return PoolingStep(
        tokens_before=tokens,
        map_before=before,
        tokens_after=joined[:, : tokens.shape[1]],
        map_after=after.reshape(len(after), *grid, -1),
        kernel=ops.convert_to_numpy(pooling.depthwise_conv.kernel),
    )


def pooling_after(model, stage):
    """The `TokenPooling` after a stage.

    Raises:
        ValueError: If there is none.
    """
    poolings = [layer for layer in model.layers if isinstance(layer, TokenPooling)]
    if stage not in range(1, len(poolings) + 1):
        raise ValueError(
            f"{model.name} has {len(poolings)} token poolings, after stages counted from 1; got "
            f"{stage!r}."
        )
    return poolings[stage - 1]


def pooled_with_same_padding(pooling, feature_map):
    """What Keras' `padding="same"` would give in place of the zeros all around: a trap.

    On odd sides it is the same. Even ones Keras pads on one side only, so that every window lies a
    token further down and right than in the authors' code, with output of the same shape.

    Args:
        pooling: A built `TokenPooling`.
        feature_map: (B, H, W, C).

    Returns:
        An array (B, h, w, m * C).
    """
    convolution = pooling.depthwise_conv
    pooled = ops.depthwise_conv(
        feature_map,
        convolution.kernel,
        strides=pooling.stride,
        padding="same",
        dilation_rate=pooling.dilation,
    )
    return ops.convert_to_numpy(pooled + convolution.bias)


def busiest_channels(step, count):
    """Channels whose map before the pooling varies most over the first image, most first."""
    return np.argsort(-step.map_before[0].std(axis=(0, 1)), kind="stable")[:count]
