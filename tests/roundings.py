"""How many roundings the numbers of a network go through, for `tolerances.assert_close`."""

import math

import keras

from pit_keras.models.attention import TransformerBlock


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
