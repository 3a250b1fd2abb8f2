"""The layers that PiT and ViT are made of. Everything is `channels_last` and `keras.ops` alone.

Shapes: B images, T class (and distillation) tokens, N = H * W spatial tokens, C channels. H and W
may be None while a model is built (`input_shape=(None, None, 3)`); a layer then reads them from its
inputs, and where these do not tell, from a map of the same grid that is given beside them.
"""

import keras
from keras import layers, ops

from pit_keras.models.initializers import EMBEDDING_STDDEV, linear_initializers
from pit_keras.models.resampling import resampled
from pit_keras.models.tracing import compiled_by_xla, recomputed, recomputes_blocks

LAYER_NORM_EPSILON = 1e-6

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


@_register
class TokenPooling(layers.Layer):
    """Token pooling (section 3.2, figure 4): half the height and width, more channels.

    The map goes through a strided 3 x 3 depth-wise convolution, the class tokens through one Dense
    layer that they share, and both are joined again:
    (B, T, C), (B, H, W, C) -> (B, T + ceil(H / 2) * ceil(W / 2), C * multiplier).

    With stride 1 the grid stays as it is: (B, T + H * W, C * multiplier). For dense prediction that
    goes with dilation 2, so that the kernel's taps are as far apart on the image as if the next
    stage were coarser. The weights are the same.

    Args:
        multiplier: Output channels for each input channel; 2 in every PiT.
        stride: Of the convolution.
        dilation: Of the convolution, and with it the zeros around the map; 1 unless stride is 1.
    """

    KERNEL, STRIDE = 3, 2

    def __init__(self, multiplier=2, stride=STRIDE, dilation=1, **kwargs):
        super().__init__(**kwargs)
        self.multiplier = multiplier
        self.stride = stride
        self.dilation = dilation

    def build(self, input_shape):
        channels = input_shape[0][-1]
        # Keras' "same" pads even sides on one side only, PyTorch's padding 1 on both; hence
        # explicit zeros and a convolution without padding.
        self.padding = layers.ZeroPadding2D(self.dilation, dtype=self.dtype_policy)
        linear = linear_initializers("torch_default", fan_in=self.KERNEL**2)
        self.depthwise_conv = layers.DepthwiseConv2D(
            self.KERNEL,
            strides=self.stride,
            dilation_rate=self.dilation,
            depth_multiplier=self.multiplier,
            depthwise_initializer=linear["kernel_initializer"],
            bias_initializer=linear["bias_initializer"],
            dtype=self.dtype_policy,
            name="depthwise_conv",
        )
        self.class_dense = layers.Dense(
            channels * self.multiplier,
            **linear_initializers("torch_default", channels),
            dtype=self.dtype_policy,
            name="class_dense",
        )
        self.depthwise_conv.build((None, None, None, channels))
        self.class_dense.build((None, None, channels))

    def call(self, inputs):
        tokens, feature_map = inputs
        padded = self.padding(feature_map)
        pooled = self._pool_by_taps(padded) if compiled_by_xla() else self.depthwise_conv(padded)
        return join_tokens(self.class_dense(tokens), pooled)

    def _pool_by_taps(self, padded):
        """The same convolution as a sum over the kernel's nine taps."""
        kernel = ops.cast(self.depthwise_conv.kernel, padded.dtype)  # (3, 3, C, multiplier)
        bias = ops.cast(self.depthwise_conv.bias, padded.dtype)
        reach, stride = self.dilation * (self.KERNEL - 1), self.stride
        height, width = pooled_grid((side - reach for side in grid_of(padded)), stride)
        rows, columns = (height - 1) * stride + 1, (width - 1) * stride + 1
        starts = range(0, reach + 1, self.dilation)
        pooled = sum(
            padded[:, top : top + rows : stride, left : left + columns : stride, :, None]
            * kernel[i, j]
            for i, top in enumerate(starts)
            for j, left in enumerate(starts)
        )  # (B, H, W, C, multiplier)
        return ops.reshape(pooled, (-1, height, width, bias.shape[0])) + bias

    def compute_output_shape(self, input_shape):
        (_, num_tokens, channels), (batch, *grid, _) = input_shape
        pooled = (batch, *pooled_grid(grid, self.stride), channels * self.multiplier)
        return joined_shape(num_tokens, pooled)

    def get_config(self):
        return {
            **super().get_config(),
            "multiplier": self.multiplier,
            "stride": self.stride,
            "dilation": self.dilation,
        }


@_register
class Attention(layers.Layer):
    """Multi-head self-attention with one fused projection to queries, keys and values.

    Works on flattened tokens, (B * N, C) -> (B * N, C): matrix products with a two-dimensional
    left side are what CPU libraries fuse with bias and activation.

    Args:
        num_heads: Number of heads; it must divide the channels.
        num_positions: N, tokens of one image; None if each call tells it.
        drop_rate: Dropout after the output projection.
        attention_drop_rate: Dropout of the attention weights.
        initialization: See `pit_keras.models.initializers`.
    """

    def __init__(
        self,
        num_heads,
        num_positions,
        drop_rate=0.0,
        attention_drop_rate=0.0,
        initialization="torch_default",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.num_positions = num_positions
        self.drop_rate = drop_rate
        self.attention_drop_rate = attention_drop_rate
        self.initialization = initialization

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide {channels} channels.")
        self.qkv = layers.Dense(
            3 * channels,
            **linear_initializers(self.initialization, channels),
            dtype=self.dtype_policy,
            name="qkv",
        )
        self.projection = layers.Dense(
            channels,
            **linear_initializers(self.initialization, channels),
            dtype=self.dtype_policy,
            name="projection",
        )
        self.drop = layers.Dropout(self.drop_rate, dtype=self.dtype_policy)
        self.attention_drop = layers.Dropout(self.attention_drop_rate, dtype=self.dtype_policy)
        self.qkv.build(input_shape)
        self.projection.build(input_shape)

    def call(
        self,
        inputs,
        num_positions=None,
        num_queries=None,
        return_weights=False,
        training=False,
    ):
        channels = inputs.shape[-1]
        query, key, value = self.query_key_value(inputs, num_positions)
        if num_queries is not None:  # only the first tokens ask, and (B * num_queries, C) comes out
            query = query[:, :, :num_queries]
        weights = self.attention_drop(attention_weights(query, key), training=training)
        heads = ops.matmul(weights, value)  # (B, heads, N, C / heads)
        merged = ops.reshape(ops.transpose(heads, (0, 2, 1, 3)), (-1, channels))  # (B * N, C)
        outputs = self.drop(self.projection(merged), training=training)
        return (outputs, weights) if return_weights else outputs

    def query_key_value(self, inputs, num_positions=None):
        """(B * N, C) -> three tensors (B, heads, N, C / heads)."""
        num_positions = num_positions if self.num_positions is None else self.num_positions
        size = inputs.shape[-1] // self.num_heads
        # Queries, keys and values stay side by side on the axis of heads: slicing an axis of their
        # own away would cut a TFLite graph into pieces that its CPU library cannot join.
        qkv = ops.reshape(self.qkv(inputs), (-1, num_positions, 3 * self.num_heads, size))
        qkv = ops.transpose(qkv, (0, 2, 1, 3))  # -> (B, 3 * heads, N, size)
        return ops.split(qkv, 3, axis=1)  # each (B, heads, N, size)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_positions": self.num_positions,
            "drop_rate": self.drop_rate,
            "attention_drop_rate": self.attention_drop_rate,
            "initialization": self.initialization,
        }


@_register
class Mlp(layers.Layer):
    """Two Dense layers with an exact (erf) GELU between them, on (..., C)."""

    def __init__(self, ratio=4.0, drop_rate=0.0, initialization="torch_default", **kwargs):
        super().__init__(**kwargs)
        self.ratio = ratio
        self.drop_rate = drop_rate
        self.initialization = initialization

    def build(self, input_shape):
        channels = input_shape[-1]
        hidden = int(channels * self.ratio)
        self.expand = layers.Dense(
            hidden,
            **linear_initializers(self.initialization, channels),
            dtype=self.dtype_policy,
            name="expand",
        )
        self.reduce = layers.Dense(
            channels,
            **linear_initializers(self.initialization, hidden),
            dtype=self.dtype_policy,
            name="reduce",
        )
        self.drop_hidden = layers.Dropout(self.drop_rate, dtype=self.dtype_policy)
        self.drop = layers.Dropout(self.drop_rate, dtype=self.dtype_policy)
        self.expand.build(input_shape)
        self.reduce.build((*input_shape[:-1], hidden))

    def call(self, inputs, training=False):
        hidden = ops.gelu(self.expand(inputs), approximate=False)
        outputs = self.reduce(self.drop_hidden(hidden, training=training))
        return self.drop(outputs, training=training)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "ratio": self.ratio,
            "drop_rate": self.drop_rate,
            "initialization": self.initialization,
        }


@_register
class TransformerBlock(layers.Layer):
    """A pre-norm transformer block, (B, N, C) -> (B, N, C).

    Args:
        num_heads: Heads of the attention.
        mlp_ratio: Hidden width of the MLP over C.
        drop_rate: Dropout after the attention's projection and in the MLP.
        attention_drop_rate: Dropout of the attention weights.
        drop_path_rate: Chance that a residual branch is left out for an image while training.
        initialization: See `pit_keras.models.initializers`.
    """

    def __init__(
        self,
        num_heads,
        mlp_ratio=4.0,
        drop_rate=0.0,
        attention_drop_rate=0.0,
        drop_path_rate=0.0,
        initialization="torch_default",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.drop_rate = drop_rate
        self.attention_drop_rate = attention_drop_rate
        self.drop_path_rate = drop_path_rate
        self.initialization = initialization

    def build(self, input_shape):
        _, num_positions, channels = input_shape
        self.attention_norm = self._norm("attention_norm")
        self.attention = Attention(
            self.num_heads,
            num_positions,
            self.drop_rate,
            self.attention_drop_rate,
            self.initialization,
            dtype=self.dtype_policy,
            name="attention",
        )
        self.attention_drop_path = self._drop_path()
        self.mlp_norm = self._norm("mlp_norm")
        self.mlp = Mlp(
            self.mlp_ratio,
            self.drop_rate,
            self.initialization,
            dtype=self.dtype_policy,
            name="mlp",
        )
        self.mlp_drop_path = self._drop_path()
        for layer in (self.attention_norm, self.attention, self.mlp_norm, self.mlp):
            layer.build((None, channels))

    def _norm(self, name):
        return layers.LayerNormalization(
            epsilon=LAYER_NORM_EPSILON, dtype=self.dtype_policy, name=name
        )

    def _drop_path(self):
        # One draw for each image: dropout whose mask is the same for all tokens and channels.
        return layers.Dropout(
            self.drop_path_rate, noise_shape=(None, 1, 1), dtype=self.dtype_policy
        )

    def call(self, inputs, training=False):
        if not (training and recomputes_blocks()):
            return self._both_branches(inputs, training)
        weights = {id(weight) for weight in self.weights}
        states = [variable for variable in self.variables if id(variable) not in weights]
        return recomputed(lambda x: self._both_branches(x, training), inputs, states)

    def _both_branches(self, inputs, training):
        num_positions, channels = length(inputs, 1), inputs.shape[-1]
        shape = (-1, num_positions, channels)
        x = ops.reshape(inputs, (-1, channels))  # (B, N, C) -> (B * N, C)
        branch = self.attention(
            self.attention_norm(x), num_positions=num_positions, training=training
        )
        x = x + self._dropped(self.attention_drop_path, branch, shape, training)
        branch = self.mlp(self.mlp_norm(x), training=training)
        x = x + self._dropped(self.mlp_drop_path, branch, shape, training)
        return ops.reshape(x, shape)  # (B * N, C) -> (B, N, C)

    def first_tokens(self, inputs, count):
        """The first tokens of the output without the others, (B, N, C) -> (B, count, C)."""
        num_positions, channels = length(inputs, 1), inputs.shape[-1]
        x = ops.reshape(inputs, (-1, channels))  # (B, N, C) -> (B * N, C)
        x = self.attention_norm(x)
        branch = self.attention(x, num_positions=num_positions, num_queries=count)
        x = ops.reshape(inputs[:, :count], (-1, channels)) + branch  # (B * count, C)
        x = x + self.mlp(self.mlp_norm(x))
        return ops.reshape(x, (-1, count, channels))

    def with_attention(self, inputs):
        """The output, and the attention weights behind it, for inference.

        (B, N, C) -> (B, N, C), (B, heads, N, N).
        """
        num_positions, channels = length(inputs, 1), inputs.shape[-1]
        x = ops.reshape(inputs, (-1, channels))  # (B, N, C) -> (B * N, C)
        branch, weights = self.attention(
            self.attention_norm(x), num_positions=num_positions, return_weights=True
        )
        x = x + branch
        x = x + self.mlp(self.mlp_norm(x))
        return ops.reshape(x, (-1, num_positions, channels)), weights

    def attention_of(self, inputs):
        """The attention weights that the block gives its input, (B, N, C) -> (B, heads, N, N)."""
        x = ops.reshape(inputs, (-1, inputs.shape[-1]))  # (B, N, C) -> (B * N, C)
        x = self.attention_norm(x)
        query, key, _ = self.attention.query_key_value(x, length(inputs, 1))
        return attention_weights(query, key)

    def _dropped(self, drop_path, branch, shape, training):
        if not (training and self.drop_path_rate):
            return branch
        dropped = drop_path(ops.reshape(branch, shape), training=training)
        return ops.reshape(dropped, (-1, shape[-1]))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "drop_rate": self.drop_rate,
            "attention_drop_rate": self.attention_drop_rate,
            "drop_path_rate": self.drop_path_rate,
            "initialization": self.initialization,
        }


def check_can_recompute(model):
    """Checks that `recomputing_blocks` has something to do in a model.

    Raises:
        ValueError: If the model has no `TransformerBlock`.
    """
    if not has_transformer_blocks(model):
        raise ValueError(
            f"The model {model.name!r} has no transformer blocks to be recomputed; "
            "PiT and ViT have them."
        )


def has_transformer_blocks(model):
    """Whether a model is made of `TransformerBlock`, as PiT and ViT are."""
    return any(isinstance(layer, TransformerBlock) for layer in model.layers)


def attention_weights(query, key, padding=None):
    """Softmax of the scaled products: (B, heads, M, size), (B, heads, N, size) -> (B, heads, M, N).

    The softmax is computed in float32 whatever the precision, as PyTorch's autocast does.

    Args:
        query, key: Tensors of the same size of heads.
        padding: Keys that get no weight, a mask (B, N); None if there are none.
    """
    scaled = query * query.shape[-1] ** -0.5
    logits = ops.cast(ops.matmul(scaled, ops.transpose(key, (0, 1, 3, 2))), "float32")
    if padding is not None:
        # Finite, so that an image that is padding alone gives numbers.
        logits = ops.where(padding[:, None, None, :], -1e9, logits)
    return ops.cast(ops.softmax(logits, axis=-1), query.dtype)


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


def pooled_grid(grid, stride=TokenPooling.STRIDE):
    """Grid after one `TokenPooling`; None stays None."""
    return tuple(None if side is None else (side - 1) // stride + 1 for side in grid)


def length(x, axis):
    """Length of an axis: an integer where it is known, else a scalar tensor of the graph."""
    return ops.shape(x)[axis] if x.shape[axis] is None else x.shape[axis]


def grid_of(feature_map):
    """Height and width of a map (B, H, W, C), like `length`."""
    return length(feature_map, 1), length(feature_map, 2)
