"""The transformer block of PiT and ViT: attention and MLP. Shapes as in `tokens`."""

from keras import layers, ops

from pit_keras.models.execution import recomputed, recomputes_blocks
from pit_keras.models.initializers import linear
from pit_keras.models.kernels import attend, attention_weights, gelu, mixed
from pit_keras.models.serialization import registered
from pit_keras.models.tokens import length

LAYER_NORM_EPSILON = 1e-6


@registered
class Attention(layers.Layer):
    """Multi-head self-attention on flattened tokens, (B * N, C) -> (B * N, C).

    CPU libraries fuse a bias and an activation only with products of two-dimensional matrices.
    `num_positions` is N, or None if each call gives it.
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
        channels, policy = input_shape[-1], self.dtype_policy
        if channels % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide {channels} channels.")
        self.qkv = linear("qkv", channels, 3 * channels, policy, self.initialization)
        self.projection = linear("projection", channels, channels, policy, self.initialization)
        self.drop = layers.Dropout(self.drop_rate, dtype=policy)
        self.attention_drop = layers.Dropout(self.attention_drop_rate, dtype=policy)

    def call(
        self, inputs, num_positions=None, num_queries=None, return_weights=False, training=False
    ):
        query, key, value = self.query_key_value(inputs, num_positions)
        if num_queries is not None:  # of the first tokens alone; the output is (B * num_queries, C)
            query = query[:, :, :num_queries]
        if return_weights:
            weights = attention_weights(query, key)
            merged = mixed(value, weights)  # -> (B, N, heads, C / heads)
        else:
            merged = attend(query, key, value, dropout=self.attention_drop, training=training)
        merged = ops.reshape(merged, (-1, inputs.shape[-1]))  # -> (B * N, C)
        outputs = self.drop(self.projection(merged), training=training)
        return (outputs, weights) if return_weights else outputs

    def query_key_value(self, inputs, num_positions=None):
        """(B * N, C) -> three tensors (B, heads, N, C / heads)."""
        num_positions = num_positions if self.num_positions is None else self.num_positions
        size = inputs.shape[-1] // self.num_heads
        # All three share the axis of heads: slicing an axis of their own would cut a TFLite graph
        # into pieces that its CPU library cannot join.
        qkv = ops.reshape(self.qkv(inputs), (-1, num_positions, 3 * self.num_heads, size))
        qkv = ops.transpose(qkv, (0, 2, 1, 3))  # -> (B, 3 * heads, N, size)
        return ops.split(qkv, 3, axis=1)  # each (B, heads, N, size)


@registered
class Mlp(layers.Layer):
    """Two Dense layers with an exact (erf) GELU between them, on (..., C)."""

    def __init__(self, ratio=4.0, drop_rate=0.0, initialization="torch_default", **kwargs):
        super().__init__(**kwargs)
        self.ratio = ratio
        self.drop_rate = drop_rate
        self.initialization = initialization

    def build(self, input_shape):
        channels, policy = input_shape[-1], self.dtype_policy
        hidden = int(channels * self.ratio)
        self.expand = linear("expand", channels, hidden, policy, self.initialization)
        self.reduce = linear("reduce", hidden, channels, policy, self.initialization)
        self.drop_hidden = layers.Dropout(self.drop_rate, dtype=policy)
        self.drop = layers.Dropout(self.drop_rate, dtype=policy)

    def call(self, inputs, training=False):
        hidden = gelu(self.expand(inputs))  # (..., C) -> (..., hidden)
        outputs = self.reduce(self.drop_hidden(hidden, training=training))
        return self.drop(outputs, training=training)


@registered
class TransformerBlock(layers.Layer):
    """A pre-norm transformer block, (B, N, C) -> (B, N, C).

    In training each residual branch is left out for an image with probability `drop_path_rate`.
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
        rates, scheme = (self.drop_rate, self.attention_drop_rate), self.initialization
        common = {"dtype": self.dtype_policy}
        norm = {"epsilon": LAYER_NORM_EPSILON, **common}
        # One draw for each image: dropout whose mask is the same for all tokens and channels.
        drop_path = {"rate": self.drop_path_rate, "noise_shape": (None, 1, 1), **common}
        self.attention_norm = layers.LayerNormalization(**norm, name="attention_norm")
        self.attention = Attention(
            self.num_heads, num_positions, *rates, scheme, name="attention", **common
        )
        self.attention_drop_path = layers.Dropout(**drop_path)
        self.mlp_norm = layers.LayerNormalization(**norm, name="mlp_norm")
        self.mlp = Mlp(self.mlp_ratio, self.drop_rate, scheme, name="mlp", **common)
        self.mlp_drop_path = layers.Dropout(**drop_path)
        for layer in (self.attention_norm, self.attention, self.mlp_norm, self.mlp):
            layer.build((None, channels))

    def call(self, inputs, training=False):
        if not (training and recomputes_blocks()):
            return self._outputs(inputs, training)
        weights = {id(weight) for weight in self.weights}
        states = [variable for variable in self.variables if id(variable) not in weights]
        return recomputed(lambda x: self._outputs(x, training), inputs, states)

    def first_tokens(self, inputs, count):
        """The output's first tokens alone, for inference: (B, N, C) -> (B, count, C)."""
        return self._outputs(inputs, count=count)

    def with_attention(self, inputs):
        """The output and its attention weights, for inference: (B, N, C), (B, heads, N, N)."""
        return self._outputs(inputs, return_weights=True)

    def attention_of(self, inputs):
        """The attention weights alone, for inference: (B, N, C) -> (B, heads, N, N)."""
        x = ops.reshape(inputs, (-1, inputs.shape[-1]))  # (B, N, C) -> (B * N, C)
        x = self.attention_norm(x)
        query, key, _ = self.attention.query_key_value(x, length(inputs, 1))
        return attention_weights(query, key)

    def _outputs(self, inputs, training=False, count=None, return_weights=False):
        num_positions, channels = length(inputs, 1), inputs.shape[-1]
        x = ops.reshape(inputs, (-1, channels))  # (B, N, C) -> (B * N, C)
        branch = self.attention(
            self.attention_norm(x),
            num_positions=num_positions,
            num_queries=count,
            return_weights=return_weights,
            training=training,
        )
        branch, weights = branch if return_weights else (branch, None)
        if count is not None:
            x = ops.reshape(inputs[:, :count], (-1, channels))  # (B, N, C) -> (B * count, C)
            num_positions = count
        shape = (-1, num_positions, channels)
        x = x + self._dropped(self.attention_drop_path, branch, shape, training)
        branch = self.mlp(self.mlp_norm(x), training=training)
        x = x + self._dropped(self.mlp_drop_path, branch, shape, training)
        x = ops.reshape(x, shape)  # (B * N, C) -> (B, N, C)
        return (x, weights) if return_weights else x

    def _dropped(self, drop_path, branch, shape, training):
        if not (training and self.drop_path_rate):
            return branch
        dropped = drop_path(ops.reshape(branch, shape), training=training)
        return ops.reshape(dropped, (-1, shape[-1]))

    def compute_output_shape(self, input_shape):
        return input_shape


class BlockView(layers.Layer):
    """`function(block, inputs)` of a built block as a layer, for inference; it cannot be saved."""

    def __init__(self, block, function, name):
        super().__init__(name=name, dtype=block.dtype_policy)
        self.block = block
        self.function = function

    def call(self, inputs):
        return self.function(self.block, inputs)


def has_transformer_blocks(model):
    return any(isinstance(layer, TransformerBlock) for layer in model.layers)


def check_can_recompute(model):
    """Raises ValueError if `recomputing_blocks` has nothing to do in a model."""
    if not has_transformer_blocks(model):
        raise ValueError(f"{model.name} has no transformer blocks to recompute; use a PiT or ViT.")
