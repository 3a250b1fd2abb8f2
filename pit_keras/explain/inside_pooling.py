"""A token pooling from inside (section 3.2, figure 4): its input, its output, its filters."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from pit_keras.models.pooling import TokenPooling
from pit_keras.models.tokens import pooled_grid


class PoolingStep(NamedTuple):
    """One token pooling of some images, as arrays.

    Channel c of the map before becomes the channels m * c to m * c + m - 1 of the map after.
    """

    tokens_before: np.ndarray  # class (and distillation) tokens (B, T, C)
    map_before: np.ndarray  # (B, H, W, C)
    tokens_after: np.ndarray  # (B, T, m * C)
    map_after: np.ndarray  # (B, h, w, m * C)
    kernel: np.ndarray  # the depth-wise filters, (3, 3, C, m)


def pooling_step(model, stage, images):
    """The `PoolingStep` after a stage, from 1 on, for normalised images (B, H, W, 3)."""
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
    """The `TokenPooling` after a stage, from 1 on."""
    poolings = [layer for layer in model.layers if isinstance(layer, TokenPooling)]
    if stage not in range(1, len(poolings) + 1):
        count = len(poolings)
        raise ValueError(
            f"{model.name} has {count} token poolings, from stage 1 on; got {stage!r}."
        )
    return poolings[stage - 1]


def busiest_channels(step, count):
    """Channels whose map before the pooling varies most over the first image, most first."""
    return np.argsort(-step.map_before[0].std(axis=(0, 1)), kind="stable")[:count]
