"""Operations whose fastest form differs between the backends.

Each has one meaning, and its forms agree up to rounding. Shapes: B images, M queries, N keys.
"""

import math

import keras
from keras import ops

from pit_keras.models.execution import compiled_by_xla

# Bytes of one image's attention weights from which training computes them image by image.
_LARGE = 4 * 2**20


def attend(query, key, value, padding=None, dropout=None, training=False):
    """Scaled dot-product attention of heads, where nobody asks for its weights.

    (B, heads, M, size), (B, heads, N, size) twice -> (B, M, heads, size). Keys where the mask
    `padding` (B, N) is true get no weight. In training the layer `dropout` drops weights.
    """
    if training and dropout is not None and dropout.rate:
        return mixed(value, dropout(attention_weights(query, key, padding), training=True))
    if _has_one_kernel():
        query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
        mask = None if padding is None else ops.logical_not(padding)[:, None, None, :]
        return ops.dot_product_attention(query, key, value, mask=mask)
    if training and padding is None and _leaves_the_cache(query, key):
        return ops.transpose(_attend_by_image(query, key, value), (0, 2, 1, 3))
    return mixed(value, attention_weights(query, key, padding))


def mixed(value, weights):
    """(B, heads, N, size), (B, heads, M, N) -> (B, M, heads, size)."""
    return ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))


def _has_one_kernel():
    """Whether the backend has attention as one kernel, which never holds all weights."""
    if keras.backend.backend() != "jax":
        return keras.backend.backend() == "torch"
    import jax

    return jax.default_backend() != "cpu"  # where XLA takes a tenth longer for it


def attention_weights(query, key, padding=None):
    """Softmax of the scaled products: (..., M, size), (..., N, size) -> (..., M, N).

    With a mask `padding` (B, N) the others are (B, heads, M or N, size). The softmax is in float32
    in any precision, as in PyTorch's autocast.
    """
    scaled = query * query.shape[-1] ** -0.5
    logits = ops.cast(ops.matmul(scaled, ops.swapaxes(key, -1, -2)), "float32")
    if padding is not None:
        # Finite, so that an image that is padding alone gives numbers.
        logits = ops.where(padding[:, None, None, :], -1e9, logits)
    return ops.cast(ops.softmax(logits, axis=-1), query.dtype)


def _leaves_the_cache(query, key):
    import tensorflow as tf

    sizes = (*query.shape[1:3], key.shape[2])
    if None in sizes or compiled_by_xla() or tf.config.list_logical_devices("GPU"):
        return False
    return 4 * math.prod(sizes) >= _LARGE


def _attend_by_image(query, key, value):
    """Images one by one, (B, heads, N, size) each; the gradient computes their weights again.

    The weights of a whole batch leave a processor's cache and stay in memory until the gradient.
    """
    import tensorflow as tf

    def outputs_of(image):
        query, key, value = image
        return tf.matmul(attention_weights(query, key), value)

    @tf.custom_gradient
    def attended(query, key, value):
        dtype = query.dtype
        outputs = tf.map_fn(
            outputs_of, (query, key, value), fn_output_signature=dtype, parallel_iterations=1
        )

        def gradients_of(image):
            query, key, value, upstream, radial = image
            weights = attention_weights(query, key)
            by_weights = tf.cast(tf.matmul(upstream, value, transpose_b=True), "float32")
            by_logits = tf.cast(weights, "float32") * (by_weights - radial)
            by_logits = tf.cast(by_logits * query.shape[-1] ** -0.5, dtype)
            return (
                tf.matmul(by_logits, key),
                tf.matmul(by_logits, query, transpose_a=True),
                tf.matmul(weights, upstream, transpose_a=True),
            )

        def gradient(upstream):
            # The part of the weights' gradient that would change their sums, which are 1.
            radial = tf.cast(upstream, "float32") * tf.cast(outputs, "float32")
            radial = tf.reduce_sum(radial, axis=-1, keepdims=True)
            inputs = query, key, value, upstream, radial
            return tf.map_fn(
                gradients_of, inputs, fn_output_signature=(dtype,) * 3, parallel_iterations=1
            )

        return outputs, gradient

    return attended(query, key, value)


def gelu(x):
    """The exact (erf) GELU, in a form that ONNX can hold and that oneDNN and TFLite fuse."""
    if keras.backend.backend() == "tensorflow":  # whose own is written with erfc, unknown to ONNX
        return 0.5 * x * (1.0 + ops.erf(x * 0.5**0.5))
    return ops.gelu(x, approximate=False)
