"""Class tokens and spatial tokens: joined, taken apart, and told where they are.

Everything is `channels_last` and `keras.ops` alone. Shapes: B images, T class (and distillation)
tokens, N = H * W spatial tokens, C channels. H and W may be None while a model is built
(`input_shape=(None, None, 3)`); a layer then reads them from its inputs, and where these do not
tell, from a map of the same grid that is given beside them.
"""

import keras
from keras import layers, ops

from pit_keras.models.initializers import EMBEDDING_STDDEV
from pit_keras.models.resampling import resampled

POOLING_STRIDE = 2  # of token pooling

_register = keras.saving.register_keras_serializable(package="pit_keras")


@_register
class PositionEmbedding(layers.Layer):
    """Adds a learned embedding of every position.

    For inputs of one size the embedding has their shape without the batch. For inputs of any size
    it has a grid of its own and is resampled to theirs, as timm resamples it for another size. The
    inputs are then a map (B, H, W, C), or a sequence with class tokens and a map of its grid:
    (B, T + H * W, C), (B, H, W, any).

    Args:
        grid: Height and width of the embedding, for inputs of any size; else None.
        num_tokens: T, for a sequence of any size: their embeddings are not resampled.
    """

    def __init__(self, grid=None, num_tokens=0, **kwargs):
        super().__init__(**kwargs)
        self.grid = None if grid is None else tuple(grid)
        self.num_tokens = num_tokens

    def build(self, input_shape):
        if self.grid is None:
            shape = input_shape[1:]
        elif self.num_tokens:
            shape = self.num_tokens + self.grid[0] * self.grid[1], input_shape[0][-1]
        else:
            shape = *self.grid, input_shape[-1]
        self.position_embedding = self.add_weight(
            name="position_embedding",
            shape=(1, *shape),
            initializer=keras.initializers.TruncatedNormal(stddev=EMBEDDING_STDDEV),
        )

    def call(self, inputs):
        if self.grid is None:
            return inputs + self.position_embedding
        if not self.num_tokens:
            return inputs + resampled(self.position_embedding, grid_of(inputs))
        sequence, feature_map = inputs
        tokens = self.position_embedding[:, : self.num_tokens]
        spatial = self.position_embedding[:, self.num_tokens :]
        spatial = ops.reshape(spatial, (1, *self.grid, sequence.shape[-1]))  # -> (1, h, w, C)
        return sequence + join_tokens(tokens, resampled(spatial, grid_of(feature_map)))

    def compute_output_shape(self, input_shape):
        return input_shape[0] if self.num_tokens else input_shape

    def get_config(self):
        return {**super().get_config(), "grid": self.grid, "num_tokens": self.num_tokens}


@_register
class PrependTokens(layers.Layer):
    """Flattens a map and puts learned class tokens in front: (B, H, W, C) -> (B, T + H * W, C)."""

    def __init__(self, num_tokens=1, **kwargs):
        super().__init__(**kwargs)
        self.num_tokens = num_tokens

    def build(self, input_shape):
        self.class_tokens = self.add_weight(
            name="class_tokens",
            shape=(1, self.num_tokens, input_shape[-1]),
            initializer=keras.initializers.TruncatedNormal(stddev=EMBEDDING_STDDEV),
        )

    def call(self, inputs):
        return join_tokens(ops.tile(self.class_tokens, (ops.shape(inputs)[0], 1, 1)), inputs)

    def compute_output_shape(self, input_shape):
        return joined_shape(self.num_tokens, input_shape)

    def get_config(self):
        return {**super().get_config(), "num_tokens": self.num_tokens}


@_register
class SplitTokens(layers.Layer):
    """Takes class tokens and spatial tokens apart: (B, T + H * W, C) -> (B, T, C), (B, H, W, C).

    It ends each stage, so that `model.get_layer("stage2").output[1]` is a stage's feature map.

    Args:
        num_tokens: T.
        grid: H and W. If one of them is None, a second input tells them: the map from which this
            stage's tokens were made.
        stride: By how much this stage's grid is coarser than that map's.
    """

    def __init__(self, num_tokens, grid, stride=1, **kwargs):
        super().__init__(**kwargs)
        self.num_tokens = num_tokens
        self.grid = tuple(grid)
        self.stride = stride

    def call(self, inputs):
        grid = self.grid
        if None in grid:
            inputs, source_map = inputs
            grid = pooled_grid(grid_of(source_map), self.stride)
        tokens, spatial = inputs[:, : self.num_tokens], inputs[:, self.num_tokens :]
        return tokens, ops.reshape(spatial, (-1, *grid, inputs.shape[-1]))

    def compute_output_shape(self, input_shape):
        batch, _, channels = input_shape[0] if None in self.grid else input_shape
        return (batch, self.num_tokens, channels), (batch, *self.grid, channels)

    def get_config(self):
        return {
            **super().get_config(),
            "num_tokens": self.num_tokens,
            "grid": self.grid,
            "stride": self.stride,
        }


def join_tokens(tokens, feature_map):
    """Class tokens in front of a flattened map: (B, T, C), (B, H, W, C) -> (B, T + H * W, C)."""
    height, width = grid_of(feature_map)
    flat = ops.reshape(feature_map, (-1, height * width, feature_map.shape[-1]))
    return ops.concatenate([tokens, flat], axis=1)


def joined_shape(num_tokens, map_shape):
    """Shape of what `join_tokens` returns."""
    batch, height, width, channels = map_shape
    positions = None if None in (height, width) else num_tokens + height * width
    return batch, positions, channels


def pooled_grid(grid, stride=POOLING_STRIDE):
    """Grid after one `TokenPooling`; None stays None."""
    return tuple(None if side is None else (side - 1) // stride + 1 for side in grid)


def length(x, axis):
    """Length of an axis: an integer where it is known, else a scalar tensor of the graph."""
    return ops.shape(x)[axis] if x.shape[axis] is None else x.shape[axis]


def grid_of(feature_map):
    """Height and width of a map (B, H, W, C), like `length`."""
    return length(feature_map, 1), length(feature_map, 2)
