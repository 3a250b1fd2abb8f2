"""The ways in which the reference implementations initialise linear and convolution layers."""

import math

from keras import initializers

EMBEDDING_STDDEV = 0.02  # position embeddings and class tokens, in every family

SCHEMES = ("torch_default", "truncated_normal")


def linear_initializers(scheme, fan_in):
    """Initialisers of one linear or convolution layer, as keyword arguments for its Keras layer.

    Make them anew for every layer: a Keras initialiser draws the same values each time it is used.

    `torch_default` is what PyTorch gives a layer that nobody touches: uniform within
    1 / sqrt(fan_in), the bias too. The authors of PiT leave all Linear and Conv layers so.
    `truncated_normal` is DeiT's: standard deviation 0.02, bias zero.

    Args:
        scheme: One of `SCHEMES`.
        fan_in: Number of inputs that each output sums over. It is passed, not derived, since the
            bias and a depth-wise kernel do not show it.

    Raises:
        ValueError: If the scheme is unknown.
    """
    if scheme == "torch_default":
        bound = 1 / math.sqrt(fan_in)
        return {
            "kernel_initializer": initializers.RandomUniform(-bound, bound),
            "bias_initializer": initializers.RandomUniform(-bound, bound),
        }
    if scheme == "truncated_normal":
        return {
            "kernel_initializer": initializers.TruncatedNormal(stddev=EMBEDDING_STDDEV),
            "bias_initializer": "zeros",
        }
    raise ValueError(f"Unknown initialisation {scheme!r}; known are {', '.join(SCHEMES)}.")


def kaiming_normal(fan_out):
    """Normal with variance 2 / fan_out, for convolutions that a ReLU follows. Not truncated.

    `fan_out` is passed since the reference implementations count that of grouped convolutions
    differently: PyTorch over all groups, timm's RegNet over one.
    """
    return initializers.RandomNormal(stddev=math.sqrt(2 / fan_out))
