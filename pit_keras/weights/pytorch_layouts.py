"""PyTorch's names and layouts of every variable: transformers, convolutional networks, detectors.

A PiT has the names of its authors (github.com/naver-ai/pit, `pools.{i}.conv`) or timm's
(`transformers.{i + 1}.pool.conv`, before version 0.9 `transformers.{i}.pool.conv`), a ViT DeiT's, a
ResNet torchvision's and timm's, a RegNetY timm's, and the layers behind a detector's backbone those
of DETR's authors (github.com/facebookresearch/detr).
"""

import functools
import re
from typing import Any, NamedTuple

import numpy as np

from pit_keras.models.detr import backbone_layers, is_detector

TRANSFORMER_HEADS = ("head", "head_dist")  # PiT's and ViT's, by PyTorch's names and by ours
CONVOLUTIONAL_HEADS = ("fc", "head.fc")  # ResNet's and RegNetY's by PyTorch's names; ours is `head`
BACKBONE = "backbone.0.body."  # in front of the names of the tensors of a detector's backbone

_PARAMETERS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# Layers by the paths of our variables, without numbers: those of a stage's blocks behind the block.
_TRANSFORMER = {
    "patch_embedding": "patch_embed.conv",
    "depthwise_conv": "conv",
    "class_dense": "fc",
    "attention_norm": "norm1",
    "attention/qkv": "attn.qkv",
    "attention/projection": "attn.proj",
    "mlp_norm": "norm2",
    "mlp/expand": "mlp.fc1",
    "mlp/reduce": "mlp.fc2",
    **{name: name for name in ("norm", *TRANSFORMER_HEADS)},
}
_RESNET = {
    "stem_conv": "conv1",
    "stem_norm": "bn1",
    "head": "fc",
    **{f"conv{index}": f"conv{index}" for index in (1, 2, 3)},
    **{f"norm{index}": f"bn{index}" for index in (1, 2, 3)},
    "shortcut_conv": "downsample.0",
    "shortcut_norm": "downsample.1",
}
_REGNET = {
    "stem_conv": "stem.conv",
    "stem_norm": "stem.bn",
    "head": "head.fc",
    **{f"conv{index}": f"conv{index}.conv" for index in (1, 2, 3)},
    **{f"norm{index}": f"conv{index}.bn" for index in (1, 2, 3)},
    "squeeze": "se.fc1",
    "excite": "se.fc2",
    "shortcut_conv": "downsample.conv",
    "shortcut_norm": "downsample.bn",
}
_DETR = {
    "input_projection": "input_proj",
    "feature_norm": "feature_norm",  # the authors' networks do not have it
    "expand": "linear1",
    "reduce": "linear2",
    "encoder/attention": "self_attn",
    "encoder/attention_norm": "norm1",
    "encoder/norm": "norm2",
    "decoder/self_attention": "self_attn",
    "decoder/self_attention_norm": "norm1",
    "decoder/cross_attention": "multihead_attn",
    "decoder/cross_attention_norm": "norm2",
    "decoder/norm": "norm3",
    "decoder_norm": "transformer.decoder.norm",
    "class_head": "class_embed",
    "box_head/hidden1": "bbox_embed.layers.0",
    "box_head/hidden2": "bbox_embed.layers.1",
    "box_head/box": "bbox_embed.layers.2",
}
# PiT's poolings by their number from 0 and from 1: its authors', timm's before version 0.9 and now.
_POOLS = ("pools.{0}", "transformers.{0}.pool", "transformers.{1}.pool")
_PROJECTIONS = ("query", "key", "value")  # in the order of PyTorch's one matrix for all three


class Origin(NamedTuple):
    """A variable and the keys of its tensors; `converted` makes its value of these."""

    variable: Any
    keys: tuple[str, ...]


def origins(model, names):
    """The origin of every variable of a model, in the layout that a checkpoint's names show."""
    if not is_detector(model):
        return _origins(model.layers, _keys_of_network(model.name, model.layers, names))
    layers = backbone_layers(model)
    names = [name.removeprefix(BACKBONE) for name in names]
    of_backbone = _origins(layers, _keys_of_network(model.name, layers, names), BACKBONE)
    return of_backbone + _origins(model.layers[len(layers) :], _detr_keys)


def is_transformer(layers):
    """Whether layers are a PiT's or a ViT's."""
    return any(layer.name == "position_embedding" for layer in layers)


def _origins(layers, keys_of, prefix=""):
    return [
        Origin(variable, tuple(prefix + key for key in keys_of(variable)))
        for layer in layers
        for variable in layer.weights
    ]


def _keys_of_network(name, layers, names):
    """The function from a variable to its keys; the layers show which network it is."""
    named = {layer.name: layer for layer in layers}
    if "position_embedding" in named:
        # PiT embeds positions of a map, ViT those of a sequence.
        pit = len(named["position_embedding"].position_embedding.shape) == 4
        poolings = {re.sub(r"\.(?:conv|fc)\.\w+$", "", name) for name in names}
        pools = next((each for each in _POOLS[:-1] if each.format(0, 1) in poolings), _POOLS[-1])
        return functools.partial(_transformer_keys, pit=pit, pools=pools)
    if "stage1_block1_squeeze" in named:
        return functools.partial(_convolutional_keys, table=_REGNET, block="s{0}.b{1}.")
    if "stem_pool" in named:
        return functools.partial(_convolutional_keys, table=_RESNET, block="layer{0}.{2}.")
    raise ValueError(
        f"There are no PyTorch weights for {name}: only PiT, ViT, ResNet-50 and RegNetY have known "
        "names there."
    )


def _transformer_keys(variable, pit, pools):
    layer, parameter = variable.path.rsplit("/", 1)
    if parameter == "position_embedding":
        return ("pos_embed",)
    if parameter == "class_tokens":
        return ("cls_token", "dist_token") if not pit and variable.shape[1] == 2 else ("cls_token",)
    prefix = ""
    if block := re.fullmatch(r"stage(\d+)_block(\d+)/(.+)", layer):
        prefix = f"transformers.{int(block[1]) - 1}." if pit else ""
        prefix, layer = f"{prefix}blocks.{int(block[2]) - 1}.", block[3]
    elif pooling := re.fullmatch(r"pooling(\d+)/(.+)", layer):
        stage, layer = int(pooling[1]), pooling[2]
        prefix = f"{pools.format(stage - 1, stage)}."
    name = "patch_embed.proj" if layer == "patch_embedding" and not pit else _TRANSFORMER[layer]
    return (f"{prefix}{name}.{_PARAMETERS[parameter]}",)


def _convolutional_keys(variable, table, block):
    layer, parameter = variable.path.rsplit("/", 1)
    prefix = ""
    if match := re.fullmatch(r"stage(\d+)_block(\d+)_(\w+)", layer):
        stage, number, layer = int(match[1]), int(match[2]), match[3]
        prefix = block.format(stage, number, number - 1)
    return (f"{prefix}{table[layer]}.{_PARAMETERS[parameter]}",)


def _detr_keys(variable):
    layer, parameter = variable.path.rsplit("/", 1)
    if parameter == "query_embedding":
        return ("query_embed.weight",)
    parameter, prefix = _PARAMETERS[parameter], ""
    if match := re.fullmatch(r"(encoder|decoder)_layer(\d+)/(.+)", layer):
        kind, number, layer = match.groups()
        prefix = f"transformer.{kind}.layers.{int(number) - 1}."
        attention, _, part = layer.rpartition("/")
        if attention:
            part = "out_proj." if part == "projection" else "in_proj_"
            return (f"{prefix}{_DETR[f'{kind}/{attention}']}.{part}{parameter}",)
        layer = layer if layer in _DETR else f"{kind}/{layer}"
    return (f"{prefix}{_DETR[layer]}.{parameter}",)


def converted(variable, tensor, *others):
    """A variable's value from PyTorch's tensors."""
    layer, parameter = variable.path.rsplit("/", 1)
    rank, part = len(variable.shape), layer.rsplit("/", 1)[-1]
    if parameter == "position_embedding" and rank == 4:
        return np.transpose(tensor, (0, 2, 3, 1))  # (1, C, H, W) -> (1, H, W, C)
    if parameter == "class_tokens":
        return np.concatenate([tensor, *others], axis=1)  # 2 x (1, 1, C) -> (1, 2, C)
    if parameter == "query_embedding":
        return tensor[None]  # (Q, C) -> (1, Q, C)
    if part in _PROJECTIONS:  # (3 * C, C) -> (C, C), (3 * C,) -> (C,)
        return np.transpose(np.split(tensor, 3)[_PROJECTIONS.index(part)])
    if parameter != "kernel":
        return tensor
    if rank == 2:
        return np.transpose(tensor)
    # (out, in / groups, kh, kw) -> (kh, kw, in / groups, out); the groups are in the same order.
    kernel = np.transpose(tensor, (2, 3, 1, 0))
    if part == "depthwise_conv":
        # A grouped convolution's output channel c * multiplier + m is DepthwiseConv2D's [c, m].
        kernel = kernel.reshape(*kernel.shape[:2], -1, variable.shape[-1])
    return kernel
