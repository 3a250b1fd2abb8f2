"""PyTorch checkpoints into Keras models. Only this module knows PyTorch's names and layouts.

Two layouts are understood: the authors' (github.com/naver-ai/pit, `pools.{i}.conv`) and timm's
(`transformers.{i + 1}.pool.conv`), with DeiT's for the ViTs. All other keys agree.
"""

import collections.abc
import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

_WRAPPERS = ("model", "state_dict")  # keys under which training scripts put the state dict
_TOP = ("head", "head_dist")


@dataclasses.dataclass(frozen=True)
class _Origin:
    """Where a variable comes from: the keys of its tensors, and how they become its value."""

    variable: Any
    keys: tuple[str, ...]
    convert: Callable


def load_pytorch_weights(model, path_or_state_dict):
    """Carries a PyTorch checkpoint over into a PiT or ViT, strictly and all or nothing.

    Args:
        model: A model of `create_model`. One built with `include_top=False` ignores the
            checkpoint's heads; nothing else may be left over.
        path_or_state_dict: A `.safetensors` or `.pth` file, or a mapping from names to tensors or
            arrays, in the authors' or in timm's key layout.

    Returns:
        The number of tensors carried over.

    Raises:
        ValueError: If a tensor is missing, left over or of the wrong shape (it is named), or if the
            file is not a state dict. The model is then unchanged.
        FileNotFoundError: If the file is not there.
    """
    if isinstance(path_or_state_dict, collections.abc.Mapping):
        name, state_dict = "the state dict", _unwrapped(path_or_state_dict)
    else:
        name, state_dict = str(path_or_state_dict), read_state_dict(path_or_state_dict)
    origins = _origins(model, state_dict)
    _check_keys(model, name, origins, state_dict)
    values = [_converted(origin, state_dict, name) for origin in origins]
    for origin, value in zip(origins, values, strict=True):
        origin.variable.assign(value)
    return sum(len(origin.keys) for origin in origins)


def read_state_dict(path):
    """Reads a `.safetensors` or `.pth` file as a dictionary of tensors, unpickling nothing else."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _unwrapped(_read_pickle(path), path)


def _read_safetensors(path):
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs safetensors: pip install pit_keras[convert]."
        ) from error
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}).") from error


def _read_pickle(path):
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs PyTorch: pip install torch, or give a .safetensors file."
        ) from error
    try:
        # weights_only: tensors and plain containers are read, any other pickled object is refused.
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(
            f"{path} cannot be read safely as a PyTorch state dict: it is damaged, or holds more "
            "than tensors; torch.save(model.state_dict(), path) writes one."
        ) from error


def _unwrapped(content, name="the checkpoint"):
    """The state dict itself, also where a training script saved more than that."""
    if isinstance(content, collections.abc.Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), collections.abc.Mapping):
                content = content[wrapper]
        if content and all(
            isinstance(key, str) and hasattr(value, "shape") for key, value in content.items()
        ):
            return content
    raise ValueError(f"{name} is not a state dict, a mapping from names to tensors.")


def _origins(model, state_dict):
    """Every variable of the model with its keys, in the layout that the checkpoint has."""
    embedding = model.get_layer("position_embedding").position_embedding
    pit = len(embedding.shape) == 4  # PiT embeds positions of a map, ViT those of a sequence
    authors_layout = any(key.startswith("pools.") for key in state_dict)
    origins = []
    for layer in model.layers:
        if block := re.fullmatch(r"stage(\d+)_block(\d+)", layer.name):
            stage, index = int(block[1]) - 1, int(block[2]) - 1
            prefix = f"transformers.{stage}.blocks.{index}" if pit else f"blocks.{index}"
            origins += _block(layer, prefix)
        elif pooling := re.fullmatch(r"pooling(\d+)", layer.name):
            stage = int(pooling[1])
            prefix = f"pools.{stage - 1}" if authors_layout else f"transformers.{stage}.pool"
            depthwise_kernel = functools.partial(_depthwise_kernel, multiplier=layer.multiplier)
            origins += _affine(layer.depthwise_conv, f"{prefix}.conv", depthwise_kernel)
            origins += _affine(layer.class_dense, f"{prefix}.fc", np.transpose)
        elif layer.name == "patch_embedding":
            prefix = "patch_embed.conv" if pit else "patch_embed.proj"
            origins += _affine(layer, prefix, _convolution_kernel)
        elif layer.name == "position_embedding":
            convert = _channels_last if pit else _same
            origins.append(_Origin(layer.position_embedding, ("pos_embed",), convert))
        elif layer.name == "class_tokens":
            separate = not pit and layer.num_tokens == 2
            keys = ("cls_token", "dist_token") if separate else ("cls_token",)
            origins.append(_Origin(layer.class_tokens, keys, _joined))
        elif layer.name == "norm":
            origins += _norm(layer, "norm")
        elif layer.name in _TOP:
            origins += _affine(layer, layer.name, np.transpose)
    return origins


def _block(layer, prefix):
    return [
        *_norm(layer.attention_norm, f"{prefix}.norm1"),
        *_affine(layer.attention.qkv, f"{prefix}.attn.qkv", np.transpose),
        *_affine(layer.attention.projection, f"{prefix}.attn.proj", np.transpose),
        *_norm(layer.mlp_norm, f"{prefix}.norm2"),
        *_affine(layer.mlp.expand, f"{prefix}.mlp.fc1", np.transpose),
        *_affine(layer.mlp.reduce, f"{prefix}.mlp.fc2", np.transpose),
    ]


def _affine(layer, prefix, convert_kernel):
    return [
        _Origin(layer.kernel, (f"{prefix}.weight",), convert_kernel),
        _Origin(layer.bias, (f"{prefix}.bias",), _same),
    ]


def _norm(layer, prefix):
    return [
        _Origin(layer.gamma, (f"{prefix}.weight",), _same),
        _Origin(layer.beta, (f"{prefix}.bias",), _same),
    ]


def _same(tensor):
    return tensor


def _joined(*tensors):
    return np.concatenate(tensors, axis=1)  # (1, 1, C), (1, 1, C) -> (1, 2, C)


def _channels_last(tensor):
    return np.transpose(tensor, (0, 2, 3, 1))  # (1, C, H, W) -> (1, H, W, C)


def _convolution_kernel(tensor):
    return np.transpose(tensor, (2, 3, 1, 0))  # (out, in, kh, kw) -> (kh, kw, in, out)


def _depthwise_kernel(tensor, multiplier):
    # A grouped convolution's output channel c * multiplier + m is DepthwiseConv2D's [c, m].
    out, _, height, width = tensor.shape
    kernel = np.transpose(tensor, (2, 3, 1, 0))  # (out, 1, kh, kw) -> (kh, kw, 1, out)
    return kernel.reshape(height, width, out // multiplier, multiplier)


def _check_keys(model, name, origins, state_dict):
    expected = {key for origin in origins for key in origin.keys}
    present = set(state_dict)
    if not any(layer.name in _TOP for layer in model.layers):
        present = {key for key in present if key.split(".")[0] not in _TOP}
    missing, left_over = expected - present, present - expected
    if missing:
        raise ValueError(
            f"{name} does not fit {model.name}: it lacks {len(missing)} of the model's "
            f"{len(expected)} tensors: {_listed(missing)}."
        )
    if left_over:
        raise ValueError(
            f"{name} does not fit {model.name}: {len(left_over)} of its tensors would be left "
            f"over: {_listed(left_over)}."
        )


def _listed(keys):
    return ", ".join(sorted(keys)[:5]) + (", ..." if len(keys) > 5 else "")


def _array(tensor):
    if hasattr(tensor, "detach"):  # PyTorch's; it may want gradients, or be bfloat16 unlike NumPy
        tensor = tensor.detach().cpu().float()
    return np.asarray(tensor)


def _converted(origin, state_dict, name):
    tensors = [_array(state_dict[key]) for key in origin.keys]
    shape = tuple(origin.variable.shape)
    try:
        value = origin.convert(*tensors)
    except ValueError:  # not even the number of axes is right
        value = None
    if value is None or value.shape != shape:
        raise ValueError(
            f"{name}: tensor {' + '.join(origin.keys)} of shape "
            f"{', '.join(str(tensor.shape) for tensor in tensors)} does not fit "
            f"{origin.variable.path} of shape {shape}."
        )
    return value
