"""PyTorch checkpoints into Keras models. Only this package knows PyTorch's names and layouts.

For PiT two layouts are understood: the authors' (github.com/naver-ai/pit, `pools.{i}.conv`) and
timm's (`transformers.{i + 1}.pool.conv`), with DeiT's for the ViTs. All other keys agree. The
convolutional networks' are in `convolutional.py`, the detectors' in `detr.py`.
"""

import collections.abc
import dataclasses
import functools
import pathlib
import re
import zipfile

import numpy as np

from pit_keras.models.detr import backbone_layers, is_detector
from pit_keras.weights import convolutional, detr
from pit_keras.weights.checkpoint import Checkpoint, Misfit, listed
from pit_keras.weights.origin import Origin
from pit_keras.weights.variants import hint

_WRAPPERS = ("model", "state_dict")  # keys under which training scripts put the state dict
_TOP = ("head", "head_dist")
_COUNTER = "num_batches_tracked"  # a BatchNorm's; nothing is computed from it
# PyTorch's names of heads (DeiT's and PiT's, ResNet's, RegNetY's), and the layers here.
_HEADS = {"head": "head", "head_dist": "head_dist", "fc": "head", "head.fc": "head"}


def load_pytorch_weights(model, path_or_state_dict):
    """Carries a PyTorch checkpoint over into a PiT, ViT, ResNet, RegNetY or DETR, all or nothing.

    Every tensor has to find its place and every place its tensor, BatchNorm's statistics included.

    Args:
        model: A model of `create_model`. One built with `include_top=False` ignores the
            checkpoint's heads; nothing else may be left over.
        path_or_state_dict: A `.safetensors` or `.pth` file, or a mapping from names to tensors or
            arrays, in the authors', timm's or (ResNet-50) torchvision's key layout. A detector's is
            that of DETR's authors, with `backbone.0.body.` before its backbone's names.

    Returns:
        The number of tensors carried over.

    Raises:
        ValueError: If a tensor is missing, left over or of the wrong shape (it is named), or if the
            file is not a state dict. The model is then unchanged.
        FileNotFoundError: If the file is not there.
    """
    name, state_dict = _named_state_dict(path_or_state_dict)
    try:
        origins = _origins(model, state_dict)
        _check_keys(model, name, origins, state_dict)
        values = [_converted(origin, state_dict, name) for origin in origins]
        for origin, value in zip(origins, values, strict=True):
            _check_shape(origin, value, state_dict, name)
    except Misfit as error:
        raise ValueError(f"{error}{hint(shapes_of(state_dict), model.name)}") from error
    values = {origin.variable.path: value for origin, value in zip(origins, values, strict=True)}
    Checkpoint(name, values, _names(origins)).check_finite()
    for origin in origins:
        origin.variable.assign(values[origin.variable.path])
    return len({key for origin in origins for key in origin.keys})


def read_checkpoint(model, path_or_state_dict):
    """The values of a PyTorch checkpoint by the paths of a model's variables, of whatever shapes.

    Args:
        model: A model of the checkpoint's variant. Its size, its classes, and whether it has heads
            and a distillation token need not be the checkpoint's.
        path_or_state_dict: As for `load_pytorch_weights`.

    Returns:
        A `Checkpoint`, of which no tensor is left over. Values that the model needs may be missing.

    Raises:
        Misfit: If a tensor is left over, or cannot be put into Keras' layout.
        ValueError: If the file is not a state dict, or holds values that are not finite.
        FileNotFoundError: If the file is not there.
    """
    name, state_dict = _named_state_dict(path_or_state_dict)
    try:
        origins = [_present_tokens(origin, state_dict) for origin in _origins(model, state_dict)]
        _check_none_left_over(model, name, origins, state_dict)
        values = {
            origin.variable.path: _converted(origin, state_dict, name)
            for origin in origins
            if all(key in state_dict for key in origin.keys)
        }
    except Misfit as error:
        raise Misfit(f"{error}{hint(shapes_of(state_dict), model.name)}") from error
    checkpoint = Checkpoint(name, _with_all_heads(values, state_dict), _names(origins))
    checkpoint.check_finite()
    return checkpoint


def shapes_of(state_dict):
    """Names to shapes."""
    return {name: tuple(tensor.shape) for name, tensor in state_dict.items()}


def _named_state_dict(path_or_state_dict):
    if isinstance(path_or_state_dict, collections.abc.Mapping):
        return "the state dict", _unwrapped(path_or_state_dict)
    return str(path_or_state_dict), read_state_dict(path_or_state_dict)


def _names(origins):
    return {origin.variable.path: " + ".join(origin.keys) for origin in origins}


def _present_tokens(origin, state_dict):
    """The origin of the class tokens, as many as the checkpoint has, not the model."""
    if origin.keys[0] != "cls_token":
        return origin
    present = tuple(key for key in ("cls_token", "dist_token") if key in state_dict)
    return Origin(origin.variable, present or ("cls_token",), origin.convert)


def _with_all_heads(values, state_dict):
    """Adds the heads that the checkpoint has and the model has not."""
    for key, layer in _HEADS.items():
        if f"{key}.weight" in state_dict and f"{key}.bias" in state_dict:
            values.setdefault(f"{layer}/kernel", np.transpose(_array(state_dict[f"{key}.weight"])))
            values.setdefault(f"{layer}/bias", _array(state_dict[f"{key}.bias"]))
    return values


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
    except (safetensors.SafetensorError, AttributeError) as error:  # a type that NumPy lacks
        raise ValueError(f"{path} is not a readable safetensors file ({error}).") from error


def _read_pickle(path):
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs PyTorch: pip install torch, or give a .safetensors file."
        ) from error
    _check_archive(path)
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


def _check_archive(path):
    """PyTorch does not look at the checksums that its archives carry."""
    damaged = None
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # a damaged archive too can raise nearly anything
        raise ValueError(f"{path} is damaged: what is in it cannot be read.") from error
    if damaged:
        raise ValueError(f"{path} is damaged: the checksum of {damaged} in it does not match.")


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


def _is_transformer(model):
    return any(layer.name == "position_embedding" for layer in model.layers)


def _origins(model, state_dict):
    """Every variable of the model with its keys, in the layout that the checkpoint has."""
    if is_detector(model):
        return _detector_origins(model, state_dict)
    return _network_origins(model.name, model.layers, state_dict)


def _detector_origins(model, state_dict):
    layers = backbone_layers(model)
    names = [key.removeprefix(detr.BACKBONE) for key in state_dict]
    of_backbone = [
        dataclasses.replace(origin, keys=tuple(detr.BACKBONE + key for key in origin.keys))
        for origin in _network_origins(model.name, layers, names)
    ]
    return [*of_backbone, *detr.origins(model.layers[len(layers) :])]


def _network_origins(name, layers, names):
    """Every variable of a network's layers with its keys, in the layout of a checkpoint's names."""
    named = {layer.name: layer for layer in layers}
    if "position_embedding" not in named:
        return convolutional.origins(name, layers)
    embedding = named["position_embedding"].position_embedding
    pit = len(embedding.shape) == 4  # PiT embeds positions of a map, ViT those of a sequence
    authors_layout = any(key.startswith("pools.") for key in names)
    origins = []
    for layer in layers:
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
            origins.append(Origin(layer.position_embedding, ("pos_embed",), convert))
        elif layer.name == "class_tokens":
            separate = not pit and layer.num_tokens == 2
            keys = ("cls_token", "dist_token") if separate else ("cls_token",)
            origins.append(Origin(layer.class_tokens, keys, _joined))
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
        Origin(layer.kernel, (f"{prefix}.weight",), convert_kernel),
        Origin(layer.bias, (f"{prefix}.bias",), _same),
    ]


def _norm(layer, prefix):
    return [
        Origin(layer.gamma, (f"{prefix}.weight",), _same),
        Origin(layer.beta, (f"{prefix}.bias",), _same),
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
    missing = expected - set(state_dict)
    if missing:
        raise Misfit(
            f"{name} does not fit {model.name}: it lacks {len(missing)} of the model's "
            f"{len(expected)} tensors: {listed(missing)}."
        )
    headless = not any(layer.name in _TOP for layer in model.layers)
    _check_left_over(model, name, expected, state_dict, ignore_heads=headless)


def _check_none_left_over(model, name, origins, state_dict):
    expected = {key for origin in origins for key in origin.keys}
    _check_left_over(model, name, expected, state_dict, ignore_heads=True)


def _check_left_over(model, name, expected, state_dict, ignore_heads):
    left_over = {key for key in state_dict if not key.endswith(f".{_COUNTER}")} - expected
    if ignore_heads:
        own = _TOP if _is_transformer(model) else set(_HEADS) - set(_TOP)
        left_over = {key for key in left_over if key.rpartition(".")[0] not in own}
    if left_over:
        raise Misfit(
            f"{name} does not fit {model.name}: {len(left_over)} of its tensors would be left "
            f"over: {listed(left_over)}."
        )


def _array(tensor):
    if hasattr(tensor, "detach"):  # PyTorch's; it may want gradients, or be bfloat16 unlike NumPy
        tensor = tensor.detach().cpu()
        tensor = tensor if tensor.is_complex() else tensor.float()
    tensor = np.asarray(tensor)
    if np.iscomplexobj(tensor):
        raise ValueError("complex numbers")
    with np.errstate(over="ignore"):  # what becomes infinite is refused later, by its name
        return tensor.astype(np.float32, copy=False)


def _converted(origin, state_dict, name):
    try:
        return origin.convert(*(_array(state_dict[key]) for key in origin.keys))
    except (ValueError, TypeError):  # not even the number of axes is right, or no plain tensor
        raise Misfit(_shape_message(origin, state_dict, name)) from None


def _check_shape(origin, value, state_dict, name):
    if value.shape != tuple(origin.variable.shape):
        raise Misfit(_shape_message(origin, state_dict, name))


def _shape_message(origin, state_dict, name):
    return (
        f"{name}: tensor {' + '.join(origin.keys)} of shape "
        f"{', '.join(str(tuple(state_dict[key].shape)) for key in origin.keys)} does not fit "
        f"{origin.variable.path} of shape {tuple(origin.variable.shape)}."
    )
