"""Linear and convolution layers begin as those of the reference implementations do."""

import math

import keras
from keras import initializers, layers

EMBEDDING_STDDEV = 0.02  # position embeddings and class tokens, in every family


def linear_initializers(scheme, fan_in):
    """Initialisers for one layer, as keyword arguments; make them anew for each layer.

    "torch_default", the choice of PiT's authors, is uniform within 1 / sqrt(fan_in), the bias too;
    "truncated_normal", DeiT's, has deviation 0.02 and bias zero.
    """
    if scheme == "truncated_normal":
        kernel = initializers.TruncatedNormal(stddev=EMBEDDING_STDDEV)
        return {"kernel_initializer": kernel, "bias_initializer": "zeros"}
    if scheme != "torch_default":
        raise ValueError(f"Unknown initialisation {scheme!r}; use torch_default, truncated_normal.")
    bound = 1 / math.sqrt(fan_in)
    return {
        "kernel_initializer": initializers.RandomUniform(-bound, bound),
        "bias_initializer": initializers.RandomUniform(-bound, bound),
    }


def linear(name, inputs, outputs, dtype, scheme="torch_default"):
    """A built `Dense` layer that begins as `linear_initializers` says."""
    return dense(name, inputs, outputs, dtype, *linear_initializers(scheme, inputs).values())


def dense(name, inputs, outputs, dtype, kernel, bias="zeros"):
    """A built `Dense` layer of these initialisers, (..., inputs) -> (..., outputs)."""
    layer = layers.Dense(
        outputs, kernel_initializer=kernel, bias_initializer=bias, dtype=dtype, name=name
    )
    layer.build((None, inputs))
    if isinstance(layer.dtype_policy, keras.dtype_policies.DTypePolicyMap):
        # Keras cannot save a quantized Dense again whose policy is one of a map (3.15).
        layer._dtype_policy = layer.dtype_policy[layer.path]
    return layer


def kaiming_normal(fan_out):
    """Normal with variance 2 / fan_out, for a convolution before a ReLU. Not truncated.

    The caller counts `fan_out`: PyTorch counts it over all groups, timm's RegNet over one.
    """
    return initializers.RandomNormal(stddev=math.sqrt(2 / fan_out))
