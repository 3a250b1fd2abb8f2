"""Cost of a model: parameters and multiply-accumulates of one image (tables 1 and 3)."""

import contextlib
import functools
import math

import keras

from pit_keras.models.attention import TransformerBlock
from pit_keras.models.detr_layers import BoxHead, DetrDecoderLayer, DetrEncoderLayer
from pit_keras.models.pooling import TokenPooling


@contextlib.contextmanager
def shapes_only():
    """Within it, a model is made whose weights have no values: enough to count, and quick."""
    policy = keras.config.dtype_policy()
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        # Keras would draw the values at the end of the next scope, whichever that is.
        keras.utils.clear_session(free_memory=False)
        keras.config.set_dtype_policy(policy)


def count_parameters(model):
    """Parameters that are trained, as PyTorch counts them: without BatchNorm's statistics."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def count_macs(model):
    """Multiply-accumulates of one image's forward pass; the paper calls this number FLOPs.

    Matrix products and convolutions count; norms, activations, softmax, additions and biases do
    not. The authors' printed figures are up to 2% larger.
    """
    if None in model.input_shape[1:]:
        raise ValueError(f"{model.name} has no fixed input size: {model.input_shape}.")
    return sum(_layer_macs(layer) for layer in model.layers)


@functools.singledispatch
def _layer_macs(layer):
    if any(len(variable.shape) > 1 and variable.name == "kernel" for variable in layer.weights):
        raise TypeError(f"MACs of {type(layer).__name__} ({layer.name}) are not known.")
    return 0


@_layer_macs.register
def _(layer: keras.layers.Dense):
    return _products(layer) * math.prod(layer.input.shape[1:-1])


@_layer_macs.register(keras.layers.Conv2D)
@_layer_macs.register(keras.layers.DepthwiseConv2D)
def _(layer):
    return _products(layer) * math.prod(layer.output.shape[1:3])


@_layer_macs.register
def _(layer: TokenPooling):
    tokens, _ = layer.input
    class_tokens = tokens.shape[1]
    pooled_positions = layer.output.shape[1] - class_tokens
    return (
        _products(layer.depthwise_conv) * pooled_positions
        + _products(layer.class_dense) * class_tokens
    )


@_layer_macs.register
def _(layer: TransformerBlock):
    _, positions, channels = layer.input.shape
    attention, mlp = layer.attention, layer.mlp
    linear = _products(attention.qkv, attention.projection, mlp.expand, mlp.reduce)
    # Twice: queries times keys, and weights times values.
    return positions * linear + 2 * positions**2 * channels


@_layer_macs.register
def _(layer: DetrEncoderLayer):
    positions = layer.input[0].shape[1]
    feed_forward = positions * _products(layer.expand, layer.reduce)
    return _attention_macs(layer.attention, positions, positions) + feed_forward


@_layer_macs.register
def _(layer: DetrDecoderLayer):
    objects, _, _, memory = layer.input
    queries, positions = objects.shape[1], memory.shape[1]
    return (
        _attention_macs(layer.self_attention, queries, queries)
        + _attention_macs(layer.cross_attention, queries, positions)
        + queries * _products(layer.expand, layer.reduce)
    )


@_layer_macs.register
def _(layer: BoxHead):
    return layer.input.shape[1] * _products(*layer.stack)


def _attention_macs(attention, queries, keys):
    """Four projections, then queries times keys, and weights times values."""
    square = _products(attention.query)
    return 2 * (queries + keys) * square + 2 * queries * keys * attention.query.units


def _products(*layers):
    """Multiplications of layers for one position."""
    return sum(math.prod(layer.kernel.shape) for layer in layers)
