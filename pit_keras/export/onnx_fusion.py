"""ONNX graphs with LayerNormalization and GELU in the forms that runtimes know and run as one."""

import numpy as np
import onnx_ir
from onnxscript.rewriter import pattern, rewrite


def fused(model):
    """The same `onnx.ModelProto` with fewer nodes; what is not recognised stays as it was."""
    rules = (
        pattern.RewriteRule(_normalisation, _layer_normalization, _has_constants),
        pattern.RewriteRule(_centred_normalisation, _layer_normalization, _has_constants),
        pattern.RewriteRule(_gelu_by_complement, _gelu, _is_gelu),
    )
    return rewrite(model, pattern_rewrite_rules=rules)


def _normalisation(op, x, gamma, beta, epsilon, axes):
    mean, scale = _mean_and_scale(op, x, gamma, epsilon, axes)
    return op.Add(op.Mul(x, scale), op.Add(op.Mul(op.Neg(mean), scale), beta))


def _centred_normalisation(op, x, gamma, epsilon, axes):
    """With a beta of zeros, which TensorFlow leaves out: that of a network before training."""
    mean, scale = _mean_and_scale(op, x, gamma, epsilon, axes)
    return op.Add(op.Mul(x, scale), op.Mul(op.Neg(mean), scale))


def _mean_and_scale(op, x, gamma, epsilon, axes):
    mean = op.ReduceMean(x, axes, keepdims=1, _allow_other_attributes=True)
    centred = op.Sub(x, mean)
    square = op.Mul(centred, centred)
    variance = op.ReduceMean(square, axes, keepdims=1, _allow_other_attributes=True)
    return mean, op.Mul(op.Reciprocal(op.Sqrt(op.Add(variance, epsilon))), gamma)


def _has_constants(context, gamma, epsilon, axes, beta=None, **_):
    channels = _constant(gamma)
    return (
        channels is not None
        and channels.size == channels.shape[-1]
        and (beta is None or np.shape(_constant(beta)) == channels.shape)
        and np.size(_constant(epsilon)) == 1
        and np.array_equal(_constant(axes), [-1])
    )


def _layer_normalization(op, x, gamma, epsilon, axes, beta=None):
    gamma = _constant(gamma).reshape(-1)
    beta = np.zeros_like(gamma) if beta is None else _constant(beta).reshape(-1)
    scale = op.initializer(onnx_ir.tensor(gamma), name=f"{x.name}_gamma")
    bias = op.initializer(onnx_ir.tensor(beta), name=f"{x.name}_beta")
    return op.LayerNormalization(x, scale, bias, axis=-1, epsilon=float(_constant(epsilon).item()))


def _gelu_by_complement(op, x, half, one, root):
    """x / 2 * erfc(-x * sqrt(1 / 2)), as TensorFlow computes it."""
    return op.Mul(op.Mul(half, x), op.Sub(one, op.Erf(op.Mul(op.Neg(x), root))))


def _is_gelu(context, half, one, root, **_):
    values = [_constant(value) for value in (half, one, root)]
    return all(np.size(value) == 1 and value is not None for value in values) and np.allclose(
        [value.item() for value in values], [0.5, 1.0, 0.5**0.5]
    )


def _gelu(op, x, half, one, root):
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Mul(x, root)), one)), half)


def _constant(value):
    """The array that a value of the graph is, or None if it is computed."""
    return None if value.const_value is None else value.const_value.numpy()
