"""Class tokens and spatial tokens: joined, split, and their position embedding.

Shapes: B images, T class (and distillation) tokens, N = H * W spatial tokens, C channels. In a
model for images of any size, H and W are None; a layer then takes them from its inputs, or from a
map of the same grid that comes as a second input.
"""

from keras import initializers, layers, ops

from pit_keras.models.initializers import EMBEDDING_STDDEV
from pit_keras.models.resampling import resampled
from pit_keras.models.serialization import registered

POOLING_STRIDE = 2  # of token pooling


@registered
class PositionEmbedding(layers.Layer):
    """Adds a learned embedding of every position.

    For images of any size the embedding is resampled to the inputs' grid, as in timm: that of a map
    (B, H, W, C), or of a sequence (B, T + H * W, C) with a map of its grid (B, H, W, any).

    Args:
        grid: Height and width of the embedding; None for images of one size, whose inputs' shape it
            has.
        num_tokens: T, for a sequence of any size; the tokens' embeddings are not resampled.
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
            initializer=initializers.TruncatedNormal(stddev=EMBEDDING_STDDEV),
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


@registered
class PrependTokens(layers.Layer):
    """Flattens a map and puts learned class tokens in front: (B, H, W, C) -> (B, T + H * W, C)."""

    def __init__(self, num_tokens=1, **kwargs):
        super().__init__(**kwargs)
        self.num_tokens = num_tokens

    def build(self, input_shape):
        self.class_tokens = self.add_weight(
            name="class_tokens",
            shape=(1, self.num_tokens, input_shape[-1]),
            initializer=initializers.TruncatedNormal(stddev=EMBEDDING_STDDEV),
        )

    def call(self, inputs):
        return join_tokens(ops.tile(self.class_tokens, (ops.shape(inputs)[0], 1, 1)), inputs)


@registered
class SplitTokens(layers.Layer):
    """Splits class tokens and spatial tokens: (B, T + H * W, C) -> (B, T, C), (B, H, W, C).

    It ends each stage, so that `model.get_layer("stage2").output[1]` is a stage's feature map.

    Args:
        grid: H and W. If one is None, a second input gives them: the map that this stage's tokens
            were made from.
        stride: Sides of that map over those of this stage's grid.
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


def join_tokens(tokens, feature_map):
    """Class tokens in front of a flattened map: (B, T, C), (B, H, W, C) -> (B, T + H * W, C)."""
    height, width = grid_of(feature_map)
    flat = ops.reshape(feature_map, (-1, height * width, feature_map.shape[-1]))
    return ops.concatenate([tokens, flat], axis=1)


def pooled_grid(grid, stride=POOLING_STRIDE):
    """Grid after one `TokenPooling`; None stays None."""
    return tuple(None if side is None else (side - 1) // stride + 1 for side in grid)


def length(x, axis):
    """Length of an axis: an integer where it is known, else a scalar tensor of the graph."""
    return ops.shape(x)[axis] if x.shape[axis] is None else x.shape[axis]


def grid_of(feature_map):
    """Height and width of a map (B, H, W, C), like `length`."""
    return length(feature_map, 1), length(feature_map, 2)
