"""How close two computations of the same thing must be: what the arithmetic says, on any processor.

Rounding moves a number by at most half a unit in its last place, `eps / 2` of its size. Two ways to
compute the same thing, each with `n` roundings one after the other, differ by at most `n * eps` of
the largest number on the way. `n` is counted, not tuned: a sum or a matrix product of `k` terms
has `k`, a network the sum of its layers' terms along its longest path, a run as many each step.
"""

import math

import keras
import numpy as np

from pit_keras.models.attention import TransformerBlock


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


def terms_along(model, batch=None):
    """Terms of all sums of a network, as if each followed on the other: no path has more.

    Args:
        model: A model of a fixed image size.
        batch: Number of images, where normalisation takes its statistics from the batch.
    """
    terms = 0
    for variable in model.weights:
        if variable.name == "kernel":  # a depth-wise one sums over places alone
            inputs = variable.shape[: 2 if "depthwise" in variable.path else -1]
            terms += math.prod(inputs)
        elif variable.name == "gamma":  # a mean and a variance
            terms += 2 * variable.shape[-1]
    for layer in model.layers:
        if isinstance(layer, TransformerBlock):  # scores, softmax, mean of the values
            tokens, channels = layer.input.shape[1:]
            terms += channels // layer.num_heads + 2 * tokens
        elif batch and isinstance(layer, keras.layers.BatchNormalization):
            terms += 2 * batch * math.prod(layer.input.shape[1:3])
    return terms


def random_walk(terms):
    """How far two computations with so many roundings each come apart, in units of eps.

    A rounding is anywhere within half a unit, 0.29 of a unit in the mean square. Independent ones
    of either sign add up as their squares do, to six times that in less than one of 10^8 cases;
    the difference of two computations has twice as many of them.
    """
    return 6 * 0.29 * math.sqrt(2 * terms)
