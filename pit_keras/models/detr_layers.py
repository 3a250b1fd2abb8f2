"""The layers of DETR (Carion et al., *End-to-End Object Detection with Transformers*, ECCV 2020,
arXiv 2005.12872), as its authors published them.

Shapes: B images, H and W sides of a feature map, N = H * W its positions, Q object queries,
C channels. A padding mask is true where there is padding, as in PyTorch.
"""

import math

from keras import initializers, layers, ops

from pit_keras.models.initializers import dense, linear, linear_initializers
from pit_keras.models.kernels import attend
from pit_keras.models.serialization import registered
from pit_keras.models.tokens import grid_of, length

LAYER_NORM_EPSILON = 1e-5
TEMPERATURE = 10000  # ratio of the longest to the shortest wave of the position encoding


@registered
class FeaturePadding(layers.Layer):
    """The padding mask of a feature map, by "nearest": (B, h, w), (B, H, W, any) -> (B, H, W)."""

    def call(self, padding_mask, feature_map):
        mask = ops.cast(padding_mask, "bool")
        for axis, side in enumerate(grid_of(feature_map), start=1):
            pixels = ops.arange(side) * length(mask, axis) // side
            mask = ops.take(mask, pixels, axis=axis)
        return mask


@registered
class SinePositions(layers.Layer):
    """Sines and cosines of the place in the image, (B, H, W, any) -> (B or 1, N, C).

    The first half of the channels encodes the row, the second half the column, each as a share of
    the image's height or width without its padding. C is a multiple of 4.
    """

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels

    def call(self, feature_map, padding=None):
        height, width = grid_of(feature_map)
        if padding is None:
            inside = ops.ones((1, height, width), "float32")
        else:
            inside = ops.cast(ops.logical_not(padding), "float32")
        waves = ops.concatenate([self._waves(inside, axis) for axis in (1, 2)], axis=-1)
        positions = ops.reshape(waves, (-1, height * width, self.channels))  # (B, H, W, C)
        return ops.cast(positions, self.compute_dtype)

    def _waves(self, inside, axis):
        """Sine and cosine in turn, of ever longer waves: (B, H, W) -> (B, H, W, C / 2)."""
        count = ops.cumsum(inside, axis=axis)
        last = count[:, -1:, :] if axis == 1 else count[:, :, -1:]
        places = 2 * math.pi * count / (last + 1e-6)
        pairs = self.channels // 4
        exponents = ops.arange(pairs, dtype="float32") / pairs
        angles = places[..., None] / ops.power(float(TEMPERATURE), exponents)  # (B, H, W, C / 4)
        waves = ops.stack([ops.sin(angles), ops.cos(angles)], axis=-1)  # (B, H, W, C / 4, 2)
        return ops.reshape(waves, (-1, *grid_of(inside[..., None]), 2 * pairs))


@registered
class Fork(layers.Layer):
    """Twice the same tensor.

    TensorFlow adds the gradients of three or more uses of a tensor in whatever order memory becomes
    free, and training could not be repeated to the bit. With two uses there is one sum, so what
    many use is forked again and again.
    """

    def call(self, inputs):
        return ops.copy(inputs), ops.copy(inputs)


@registered
class ObjectQueries(layers.Layer):
    """The decoder's first inputs, (B, any, C) -> (B, Q, C), (B, Q, C): zeros, learned queries."""

    def __init__(self, queries, **kwargs):
        super().__init__(**kwargs)
        self.queries = queries

    def build(self, input_shape):
        self.query_embedding = self.add_weight(
            name="query_embedding",
            shape=(1, self.queries, input_shape[-1]),
            initializer=initializers.RandomNormal(stddev=1.0),
        )

    def call(self, memory):
        queries = ops.tile(self.query_embedding, (ops.shape(memory)[0], 1, 1))
        return ops.zeros_like(queries), queries


@registered
class DetrAttention(layers.Layer):
    """Multi-head attention with separate inputs for queries, keys and values.

    (B, M, C), (B, N, C), (B, N, C), and a padding mask (B, N) or None -> (B, M, C).
    """

    def __init__(self, num_heads, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dropout = dropout

    def build(self, query_shape, *_):
        channels, policy = query_shape[-1], self.dtype_policy
        # PyTorch initialises the three as one matrix of 3 * C outputs.
        bound = math.sqrt(6 / (channels + 3 * channels))
        self.query, self.key, self.value = (
            dense(name, channels, channels, policy, initializers.RandomUniform(-bound, bound))
            for name in ("query", "key", "value")
        )
        initial = initializers.GlorotUniform()
        self.projection = dense("projection", channels, channels, policy, initial)
        # Named, since a name that Keras counts up would differ between files of the same weights.
        self.drop = layers.Dropout(self.dropout, dtype=policy, name="drop")

    def call(self, query, key, value, padding=None, training=False):
        shape = (-1, length(query, 1), query.shape[-1])
        projections = self.query, self.key, self.value
        query, key, value = map(self._heads, projections, (query, key, value))
        heads = attend(query, key, value, padding, self.drop, training)  # (B, M, heads, C / heads)
        merged = ops.reshape(heads, (-1, shape[-1]))  # -> (B * M, C)
        return ops.reshape(self.projection(merged), shape)

    def _heads(self, layer, x):
        """Projects and splits into heads, (B, N, C) -> (B, heads, N, C / heads)."""
        positions, channels = length(x, 1), x.shape[-1]
        x = layer(ops.reshape(x, (-1, channels)))  # (B * N, C), see `attention.Attention`
        x = ops.reshape(x, (-1, positions, self.num_heads, channels // self.num_heads))
        return ops.transpose(x, (0, 2, 1, 3))


class _PostNormLayer(layers.Layer):
    """Encoder and decoder layer: attention and feed-forward, each normalised after its sum.

    `dropout` is that of attention weights, of hidden units, and of each branch before the sum.
    """

    def __init__(self, num_heads, feed_forward, dropout=0.1, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.feed_forward = feed_forward
        self.dropout = dropout

    def _build_feed_forward(self, channels):
        hidden = self.feed_forward
        self.expand = self._dense(hidden, channels, "expand")
        self.reduce = self._dense(channels, hidden, "reduce")
        self.drop_hidden = self._drop("drop_hidden")
        self.drop = self._drop("drop")
        self.norm = self._norm("norm", channels)

    def _dense(self, channels, fan_in, name):
        bias = linear_initializers("torch_default", fan_in)["bias_initializer"]
        kernel = initializers.GlorotUniform()
        return dense(name, fan_in, channels, self.dtype_policy, kernel, bias)

    def _norm(self, name, channels):
        norm = layers.LayerNormalization(
            epsilon=LAYER_NORM_EPSILON, dtype=self.dtype_policy, name=name
        )
        norm.build((None, None, channels))
        return norm

    def _attention(self, name, channels):
        """An attention, its dropout and its normalisation."""
        attention = DetrAttention(self.num_heads, self.dropout, dtype=self.dtype_policy, name=name)
        attention.build((None, None, channels))
        return attention, self._drop(f"{name}_drop"), self._norm(f"{name}_norm", channels)

    def _drop(self, name):
        return layers.Dropout(self.dropout, dtype=self.dtype_policy, name=name)

    def _fed_forward(self, x, training):
        """The second half of a layer, (B, N, C) -> (B, N, C)."""
        shape = (-1, length(x, 1), x.shape[-1])
        hidden = ops.relu(self.expand(ops.reshape(x, (-1, shape[-1]))))  # (B * N, hidden)
        branch = self.reduce(self.drop_hidden(hidden, training=training))
        branch = ops.reshape(self.drop(branch, training=training), shape)
        return self.norm(x + branch)

    def compute_output_shape(self, input_shape, *_, **__):
        return input_shape


@registered
class DetrEncoderLayer(_PostNormLayer):
    """Self-attention of the feature map's positions.

    Tokens (B, N, C), their positions (B or 1, N, C), a padding mask (B, N) or None -> (B, N, C).
    """

    def build(self, tokens_shape, *_, **__):
        channels = tokens_shape[-1]
        parts = self._attention("attention", channels)
        self.attention, self.attention_drop, self.attention_norm = parts
        self._build_feed_forward(channels)

    def call(self, tokens, positions, padding=None, training=False):
        seen = ops.copy(tokens)  # see `Fork`: queries and keys, values; the sum below
        placed = seen + positions
        branch = self.attention(placed, placed, seen, padding, training=training)
        x = self.attention_norm(tokens + self.attention_drop(branch, training=training))
        return self._fed_forward(x, training)


@registered
class DetrDecoderLayer(_PostNormLayer):
    """Self-attention of the objects, then their attention to the feature map.

    Objects (B, Q, C), queries (B, Q, C), the encoder's output (B, N, C) with its positions added
    (keys) and without (memory), and a padding mask (B, N) or None -> (B, Q, C).
    """

    def build(self, objects_shape, *_, **__):
        channels = objects_shape[-1]
        parts = self._attention("self_attention", channels)
        self.self_attention, self.self_attention_drop, self.self_attention_norm = parts
        parts = self._attention("cross_attention", channels)
        self.cross_attention, self.cross_attention_drop, self.cross_attention_norm = parts
        self._build_feed_forward(channels)

    def call(self, objects, queries, keys, memory, padding=None, training=False):
        seen = ops.copy(objects)  # see `Fork`
        asked = seen + queries
        branch = self.self_attention(asked, asked, seen, training=training)
        branch = self.self_attention_drop(branch, training=training)
        x = self.self_attention_norm(objects + branch)
        branch = self.cross_attention(x + queries, keys, memory, padding, training=training)
        branch = self.cross_attention_drop(branch, training=training)
        x = self.cross_attention_norm(x + branch)
        return self._fed_forward(x, training)


@registered
class BoxHead(layers.Layer):
    """Three Dense layers to a box for each object, (..., C) -> (..., 4).

    A box is its centre's x and y, its width and its height, as shares of the image's sides.
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        sizes = {"hidden1": channels, "hidden2": channels, "box": 4}
        self.stack = [
            linear(name, channels, size, self.dtype_policy) for name, size in sizes.items()
        ]

    def call(self, objects):
        first, second, last = self.stack
        return ops.sigmoid(last(ops.relu(second(ops.relu(first(objects))))))
