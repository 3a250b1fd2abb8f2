"""Cost of a model: its parameters and its multiply-accumulate operations for one image (tables 1
and 3).
"""

import functools
import math

import keras

from pit_keras.models.attention import TransformerBlock
from pit_keras.models.detr_layers import BoxHead, DetrDecoderLayer, DetrEncoderLayer
from pit_keras.models.pooling import TokenPooling


def count_parameters(model):
    """Parameters that are trained, as PyTorch counts them: without BatchNorm's statistics."""
    return sum(_elements(variable) for variable in model.trainable_variables)


def count_macs(model):
    """Multiply-accumulates of one image's forward pass, counted layer by layer.

    Matrix products and convolutions count; norms, activations, softmax, additions and biases do
    not. The paper calls this number FLOPs; the figures that its authors print are up to 2% larger.

    Args:
        model: A functional model of known input size.

    Raises:
        TypeError: For a layer with weights whose products this function does not know.
        ValueError: If the input size is not fixed.
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
    return _elements(layer.kernel) * math.prod(layer.input.shape[1:-1])


@_layer_macs.register(keras.layers.Conv2D)
@_layer_macs.register(keras.layers.DepthwiseConv2D)
def _(layer):
    return _elements(layer.kernel) * math.prod(layer.output.shape[1:3])


@_layer_macs.register
def _(layer: TokenPooling):
    tokens, _ = layer.input
    class_tokens = tokens.shape[1]
    pooled_positions = layer.output.shape[1] - class_tokens
    return (
        _elements(layer.depthwise_conv.kernel) * pooled_positions
        + _elements(layer.class_dense.kernel) * class_tokens
    )


@_layer_macs.register
def _(layer: TransformerBlock):
    _, positions, channels = layer.input.shape
    linear = (layer.attention.qkv, layer.attention.projection, layer.mlp.expand, layer.mlp.reduce)
    # Twice: queries times keys, and weights times values.
    attention = 2 * positions**2 * channels
    return positions * sum(_elements(dense.kernel) for dense in linear) + attention


@_layer_macs.register
def _(layer: DetrEncoderLayer):
    positions = layer.input[0].shape[1]
    feed_forward = _elements(layer.expand.kernel) + _elements(layer.reduce.kernel)
    return _attention_macs(layer.attention, positions, positions) + positions * feed_forward


@_layer_macs.register
def _(layer: DetrDecoderLayer):
    objects, _, _, memory = layer.input
    queries, positions = objects.shape[1], memory.shape[1]
    feed_forward = _elements(layer.expand.kernel) + _elements(layer.reduce.kernel)
    return (
        _attention_macs(layer.self_attention, queries, queries)
        + _attention_macs(layer.cross_attention, queries, positions)
        + queries * feed_forward
    )


@_layer_macs.register
def _(layer: BoxHead):
    return layer.input.shape[1] * sum(_elements(dense.kernel) for dense in layer.stack)


def _attention_macs(attention, queries, keys):
    """Four projections, then queries times keys, and weights times values."""
    square = _elements(attention.query.kernel)
    return 2 * (queries + keys) * square + 2 * queries * keys * attention.query.units


def _elements(variable):
    return math.prod(variable.shape)
