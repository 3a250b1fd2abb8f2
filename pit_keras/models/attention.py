"""The transformer block of PiT and ViT: attention and MLP. Shapes as in `tokens`."""

import keras
from keras import layers, ops

from pit_keras.models.execution import recomputed, recomputes_blocks
from pit_keras.models.initializers import linear_initializers
from pit_keras.models.tokens import length

LAYER_NORM_EPSILON = 1e-6

_register = keras.saving.register_keras_serializable(package="pit_keras")


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
