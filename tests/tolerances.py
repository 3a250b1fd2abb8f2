"""How close two computations of the same thing must be: what the arithmetic says, on any processor.

Rounding moves a number by at most half a unit in its last place, `eps / 2` of its size. Two ways to
compute the same thing, each with `n` roundings one after the other, differ by at most `n * eps` of
the largest number on the way. `n` is counted, not tuned: a sum or a matrix product of `k` terms
has `k`, a network the sum of its layers' terms along its longest path, a run as many each step.
"""

import numpy as np


def assert_close(actual, expected, *, roundings, scale=None, dtype="float32"):
    """Asserts |actual - expected| <= roundings * eps(dtype) * scale.

    Args:
        actual, expected: Numbers or arrays of the same shape.
        roundings: How many there are on the longest path from the inputs to a number.
        scale: The largest size of a number on the way; by default the largest of `expected`.
        dtype: The precision that the less exact of both was computed in.
    """
    actual, expected = np.asarray(actual, "float64"), np.asarray(expected, "float64")
    if scale is None:
        scale = np.abs(expected).max(initial=0)
    eps = {"bfloat16": 2.0**-7}.get(dtype) or float(np.finfo(dtype).eps)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=roundings * eps * scale)


def terms(model):
    """The terms of all sums that follow one another in a model: one for each input of a kernel.

    Between them are normalisations, so numbers on the way have the size 1.
    """
    return sum(
        np.prod(weight.shape[:-1], dtype=int)
        for weight in model.weights
        if weight.name in ("kernel", "depthwise_kernel")
    )
