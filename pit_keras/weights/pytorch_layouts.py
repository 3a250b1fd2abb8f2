"""PyTorch's names and layouts of every variable: transformers, convolutional networks, detectors.

For PiT two layouts are understood: the authors' (github.com/naver-ai/pit, `pools.{i}.conv`) and
timm's (`transformers.{i + 1}.pool.conv`), with DeiT's for the ViTs. A ResNet's names are
torchvision's and timm's, a RegNetY's timm's. What is behind a detector's backbone has the names of
DETR's authors (github.com/facebookresearch/detr).
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from pit_keras.models.detr import backbone_layers, is_detector

TRANSFORMER_HEADS = ("head", "head_dist")  # PiT's and ViT's, by PyTorch's names and by ours
CONVOLUTIONAL_HEADS = ("fc", "head.fc")  # ResNet's and RegNetY's by PyTorch's names; ours is `head`
BACKBONE = "backbone.0.body."  # in front of the names of the tensors of a detector's backbone


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a variable comes from: the keys of its tensors, and how they become its value."""

    variable: Any
    keys: tuple[str, ...]
    convert: Callable


def origins(model, names):
    """The origin of every variable of a model, in the layout that a checkpoint's names show.

    Raises:
        ValueError: If PyTorch has no such network.
    """
    if not is_detector(model):
        return _network(model.name, model.layers, names)
    layers = backbone_layers(model)
    names = [name.removeprefix(BACKBONE) for name in names]
    of_backbone = [
        dataclasses.replace(origin, keys=tuple(BACKBONE + key for key in origin.keys))
        for origin in _network(model.name, layers, names)
    ]
    behind = model.layers[len(layers) :]
    return of_backbone + [origin for layer in behind if layer.weights for origin in _of_detr(layer)]


def is_transformer(layers):
    """Whether layers are a PiT's or a ViT's."""
    return any(layer.name == "position_embedding" for layer in layers)


def _network(name, layers, names):
    if is_transformer(layers):
        return _transformer(layers, names)
    prefix = _convolutional_prefix(name, {layer.name for layer in layers})
    return [
        origin
        for layer in layers
        if layer.weights
        for origin in (_norm if hasattr(layer, "gamma") else _affine)(layer, prefix(layer.name))
    ]


# --- PiT and ViT


def _transformer(layers, names):
    embedding = next(layer for layer in layers if layer.name == "position_embedding")
    # PiT embeds positions of a map, ViT those of a sequence.
    pit = len(embedding.position_embedding.shape) == 4
    authors_layout = any(name.startswith("pools.") for name in names)
    found = []
    for layer in layers:
        if block := re.fullmatch(r"stage(\d+)_block(\d+)", layer.name):
            stage, index = int(block[1]) - 1, int(block[2]) - 1
            prefix = f"transformers.{stage}.blocks.{index}" if pit else f"blocks.{index}"
            found += _block(layer, prefix)
        elif pooling := re.fullmatch(r"pooling(\d+)", layer.name):
            stage = int(pooling[1])
            prefix = f"pools.{stage - 1}" if authors_layout else f"transformers.{stage}.pool"
            depthwise_kernel = functools.partial(_depthwise_kernel, multiplier=layer.multiplier)
            found += _affine(layer.depthwise_conv, f"{prefix}.conv", depthwise_kernel)
            found += _affine(layer.class_dense, f"{prefix}.fc")
        elif layer.name == "patch_embedding":
            found += _affine(layer, "patch_embed.conv" if pit else "patch_embed.proj")
        elif layer is embedding:
            convert = _channels_last if pit else np.asarray
            found.append(Origin(layer.position_embedding, ("pos_embed",), convert))
        elif layer.name == "class_tokens":
            separate = not pit and layer.num_tokens == 2
            keys = ("cls_token", "dist_token") if separate else ("cls_token",)
            found.append(Origin(layer.class_tokens, keys, _joined))
        elif layer.name == "norm":
            found += _norm(layer, "norm")
        elif layer.name in TRANSFORMER_HEADS:
            found += _affine(layer, layer.name)
    return found


def _block(layer, prefix):
    return [
        *_norm(layer.attention_norm, f"{prefix}.norm1"),
        *_affine(layer.attention.qkv, f"{prefix}.attn.qkv"),
        *_affine(layer.attention.projection, f"{prefix}.attn.proj"),
        *_norm(layer.mlp_norm, f"{prefix}.norm2"),
        *_affine(layer.mlp.expand, f"{prefix}.mlp.fc1"),
        *_affine(layer.mlp.reduce, f"{prefix}.mlp.fc2"),
    ]


def _joined(*tensors):
    return np.concatenate(tensors, axis=1)  # (1, 1, C), (1, 1, C) -> (1, 2, C)


def _channels_last(tensor):
    return np.transpose(tensor, (0, 2, 3, 1))  # (1, C, H, W) -> (1, H, W, C)


def _depthwise_kernel(tensor, multiplier):
    # A grouped convolution's output channel c * multiplier + m is DepthwiseConv2D's [c, m].
    out, _, height, width = tensor.shape
    kernel = _convolution_kernel(tensor)  # (out, 1, kh, kw) -> (kh, kw, 1, out)
    return kernel.reshape(height, width, out // multiplier, multiplier)


# --- ResNet and RegNetY


@dataclasses.dataclass(frozen=True)
class _Layout:
    """PyTorch's names of a family's layers."""

    block: str  # a block's prefix
    inside: dict[str, str]  # layers of a block, by what our names have after `stage1_block1_`
    outside: dict[str, str]  # all others, by our names

    def prefix(self, name):
        """PyTorch's name of one of our layers."""
        if name in self.outside:
            return self.outside[name]
        stage, block, part = re.fullmatch(r"stage(\d+)_block(\d+)_(\w+)", name).groups()
        prefix = self.block.format(stage=stage, block=block, block_from_0=int(block) - 1)
        return f"{prefix}.{self.inside[part]}"


_RESNET = _Layout(
    block="layer{stage}.{block_from_0}",
    inside={
        **{f"conv{index}": f"conv{index}" for index in (1, 2, 3)},
        **{f"norm{index}": f"bn{index}" for index in (1, 2, 3)},
        "shortcut_conv": "downsample.0",
        "shortcut_norm": "downsample.1",
    },
    outside={"stem_conv": "conv1", "stem_norm": "bn1", "head": "fc"},
)
_REGNET = _Layout(
    block="s{stage}.b{block}",
    inside={
        **{f"conv{index}": f"conv{index}.conv" for index in (1, 2, 3)},
        **{f"norm{index}": f"conv{index}.bn" for index in (1, 2, 3)},
        "squeeze": "se.fc1",
        "excite": "se.fc2",
        "shortcut_conv": "downsample.conv",
        "shortcut_norm": "downsample.bn",
    },
    outside={"stem_conv": "stem.conv", "stem_norm": "stem.bn", "head": "head.fc"},
)


def _convolutional_prefix(name, layer_names):
    """The function from our layers' names to PyTorch's; the layers tell which network it is."""
    if "stage1_block1_squeeze" in layer_names:
        return _REGNET.prefix
    if "stem_pool" in layer_names:
        return _RESNET.prefix
    raise ValueError(
        f"There are no PyTorch weights for {name}: only PiT, ViT, ResNet-50 and RegNetY "
        "have names there that are known."
    )


# --- DETR

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


def _of_detr(layer):
    if match := _LAYER.fullmatch(layer.name):
        return _detr_layer(layer, match[1], int(match[2]) - 1)
    if layer.name == "input_projection":
        return _affine(layer, "input_proj")
    if layer.name == "object_queries":
        return [Origin(layer.query_embedding, ("query_embed.weight",), lambda tensor: tensor[None])]
    if layer.name == "decoder_norm":
        return _norm(layer, "transformer.decoder.norm")
    if layer.name == "class_head":
        return _affine(layer, "class_embed")
    if layer.name == "box_head":
        return [
            origin
            for number, dense in enumerate(layer.stack)
            for origin in _affine(dense, f"bbox_embed.layers.{number}")
        ]
    return _norm(layer, layer.name)  # `feature_norm`, which the authors' networks do not have


def _detr_layer(layer, kind, number):
    prefix = f"transformer.{kind}.layers.{number}"
    found = [
        *_affine(layer.expand, f"{prefix}.linear1"),
        *_affine(layer.reduce, f"{prefix}.linear2"),
    ]
    for ours, theirs in _ATTENTIONS[kind].items():
        found += _detr_attention(getattr(layer, ours), f"{prefix}.{theirs}")
    for ours, theirs in _NORMS[kind].items():
        found += _norm(getattr(layer, ours), f"{prefix}.{theirs}")
    return found


def _detr_attention(attention, prefix):
    """PyTorch keeps the three projections in one matrix, queries first, then keys, then values."""
    projections = (attention.query, attention.key, attention.value)
    return [
        *_affine(attention.projection, f"{prefix}.out_proj"),
        *(
            Origin(variable, (f"{prefix}.in_proj_{key}",), _third(number))
            for number, dense in enumerate(projections)
            for key, variable in (("weight", dense.kernel), ("bias", dense.bias))
        ),
    ]


def _third(number):
    """Takes one of three equal parts of the first axis: (3 * C, C) -> (C, C), (3 * C,) -> (C,)."""
    return lambda tensor: np.transpose(np.split(tensor, 3)[number])


# --- what all have


def _affine(layer, prefix, convert_kernel=None):
    if convert_kernel is None:
        convert_kernel = np.transpose if len(layer.kernel.shape) == 2 else _convolution_kernel
    kernel = Origin(layer.kernel, (f"{prefix}.weight",), convert_kernel)
    if not layer.use_bias:
        return [kernel]
    return [kernel, Origin(layer.bias, (f"{prefix}.bias",), np.asarray)]


def _norm(layer, prefix):
    values = {"weight": layer.gamma, "bias": layer.beta}
    if hasattr(layer, "moving_mean"):
        values |= {"running_mean": layer.moving_mean, "running_var": layer.moving_variance}
    return [Origin(value, (f"{prefix}.{key}",), np.asarray) for key, value in values.items()]


def _convolution_kernel(tensor):
    # (out, in / groups, kh, kw) -> (kh, kw, in / groups, out); the groups are in the same order.
    return np.transpose(tensor, (2, 3, 1, 0))
