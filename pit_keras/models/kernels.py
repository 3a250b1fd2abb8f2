"""Operations whose fastest form differs between the backends.

Each has one meaning, and its forms agree up to rounding. Shapes: B images, M queries, N keys.
"""

import keras
from keras import ops


def attend(query, key, value, padding=None):
    """Scaled dot-product attention of heads, where nobody asks for its weights.

    (B, heads, M, size), (B, heads, N, size) twice -> (B, M, heads, size). Keys where the mask
    `padding` (B, N) is true get no weight.
    """
    if keras.backend.backend() in ("jax", "torch"):
        # PyTorch and cuDNN have it as one kernel, which never holds all weights.
        query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
        mask = None if padding is None else ops.logical_not(padding)[:, None, None, :]
        return ops.dot_product_attention(query, key, value, mask=mask)
    heads = ops.matmul(attention_weights(query, key, padding), value)
    return ops.transpose(heads, (0, 2, 1, 3))


def attention_weights(query, key, padding=None):
    """Softmax of the scaled products: (B, heads, M, size), (B, heads, N, size) -> (B, heads, M, N).

    The softmax is in float32 in any precision, as in PyTorch's autocast.
    """
    scaled = query * query.shape[-1] ** -0.5
    logits = ops.cast(ops.matmul(scaled, ops.transpose(key, (0, 1, 3, 2))), "float32")
    if padding is not None:
        # Finite, so that an image that is padding alone gives numbers.
        logits = ops.where(padding[:, None, None, :], -1e9, logits)
    return ops.cast(ops.softmax(logits, axis=-1), query.dtype)


def gelu(x):
    """The exact (erf) GELU, in a form that ONNX can hold and that oneDNN and TFLite fuse."""
    if keras.backend.backend() == "tensorflow":  # whose own is written with erfc, unknown to ONNX
        return 0.5 * x * (1.0 + ops.erf(x * 0.5**0.5))
    return ops.gelu(x, approximate=False)
