"""PyTorch's names of what is behind a detector's backbone: the authors' of DETR
(github.com/facebookresearch/detr).
"""

import re

import numpy as np

from pit_keras.weights.origin import Origin

BACKBONE = "backbone.0.body."  # in front of the names of the backbone's tensors

_LAYER = re.compile(r"(encoder|decoder)_layer(\d+)")
# Attentions and normalisations of a layer, by our names.
_ATTENTIONS = {
    "encoder": {"attention": "self_attn"},
    "decoder": {"self_attention": "self_attn", "cross_attention": "multihead_attn"},
}
_NORMS = {
    "encoder": {"attention_norm": "norm1", "norm": "norm2"},
    "decoder": {"self_attention_norm": "norm1", "cross_attention_norm": "norm2", "norm": "norm3"},
}


def origins(layers):
    """Every variable of a detector's layers behind the backbone, with its keys."""
    return [origin for layer in layers if layer.weights for origin in _of_layer(layer)]


def _of_layer(layer):
    if match := _LAYER.fullmatch(layer.name):
        return _of_transformer_layer(layer, match[1], int(match[2]) - 1)
    if layer.name == "input_projection":
        return _affine(layer, "input_proj", lambda tensor: np.transpose(tensor, (2, 3, 1, 0)))
    if layer.name == "object_queries":
        return [Origin(layer.query_embedding, ("query_embed.weight",), lambda tensor: tensor[None])]
    if layer.name == "decoder_norm":
        return _norm(layer, "transformer.decoder.norm")
    if layer.name == "class_head":
        return _affine(layer, "class_embed", np.transpose)
    if layer.name == "box_head":
        return [
            origin
            for number, dense in enumerate(layer.stack)
            for origin in _affine(dense, f"bbox_embed.layers.{number}", np.transpose)
        ]
    return _norm(layer, layer.name)  # `feature_norm`, which the authors' networks do not have


def _of_transformer_layer(layer, kind, number):
    prefix = f"transformer.{kind}.layers.{number}"
    found = [
        *_affine(layer.expand, f"{prefix}.linear1", np.transpose),
        *_affine(layer.reduce, f"{prefix}.linear2", np.transpose),
    ]
    for ours, theirs in _ATTENTIONS[kind].items():
        found += _attention(getattr(layer, ours), f"{prefix}.{theirs}")
    for ours, theirs in _NORMS[kind].items():
        found += _norm(getattr(layer, ours), f"{prefix}.{theirs}")
    return found


def _attention(attention, prefix):
    """PyTorch keeps the three projections in one matrix, queries first, then keys, then values."""
    projections = (attention.query, attention.key, attention.value)
    return [
        *_affine(attention.projection, f"{prefix}.out_proj", np.transpose),
        *(
            Origin(variable, (f"{prefix}.in_proj_{key}",), _third(number))
            for number, dense in enumerate(projections)
            for key, variable in (("weight", dense.kernel), ("bias", dense.bias))
        ),
    ]


def _third(number):
    """Takes one of three equal parts of the first axis: (3 * C, C) -> (C, C), (3 * C,) -> (C,)."""
    return lambda tensor: np.transpose(np.split(tensor, 3)[number])


def _affine(layer, prefix, convert_kernel):
    return [
        Origin(layer.kernel, (f"{prefix}.weight",), convert_kernel),
        Origin(layer.bias, (f"{prefix}.bias",), np.asarray),
    ]


def _norm(layer, prefix):
    return [
        Origin(layer.gamma, (f"{prefix}.weight",), np.asarray),
        Origin(layer.beta, (f"{prefix}.bias",), np.asarray),
    ]
