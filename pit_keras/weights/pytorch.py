"""PyTorch checkpoints into Keras models: the files, the keys and the shapes are checked here.

The names of the tensors and their layouts are in `pytorch_layouts.py`.
"""

import os
import warnings
from collections.abc import Mapping

import keras
import numpy as np

from pit_keras.weights.checkpoint_files import check_sizes, read_file
from pit_keras.weights.pytorch_layouts import (
    CONVOLUTIONAL_HEADS,
    TRANSFORMER_HEADS,
    converted,
    is_transformer,
    origins,
)
from pit_keras.weights.recognition import Checkpoint, Misfit, check_names, hinting
from pit_keras.weights.training_checkpoints import network_in

_COUNTER = ".num_batches_tracked"  # a BatchNorm's; nothing is computed from it
_HEADS = {key: key for key in TRANSFORMER_HEADS} | dict.fromkeys(CONVOLUTIONAL_HEADS, "head")


def load_pytorch_weights(
    model: keras.Model,
    path_or_state_dict: str | os.PathLike | Mapping,
    *,
    averaged: bool = True,
) -> int:
    """Carries a PyTorch checkpoint over into a PiT, ViT, ResNet, RegNetY or DETR, all or nothing.

    Every tensor has to find its place and every place its tensor, BatchNorm's statistics included;
    a model without its top ignores the checkpoint's heads.

    Args:
        path_or_state_dict: A `.safetensors` or `.pth` file, or a mapping from names to tensors or
            arrays, in the authors', timm's or (ResNet-50) torchvision's names. A detector's are
            those of DETR's authors, with `backbone.0.body.` before its backbone's names. Keys
            and prefixes that training programs put around them are seen through.
        averaged: Whether averaged weights are taken where raw ones stand beside them, with a
            warning that says so.

    Returns:
        The number of tensors carried over.

    Raises:
        ValueError: If a tensor is missing, left over or of the wrong shape (it is named), or if the
            file is not a state dict. The model is then unchanged.
        FileNotFoundError: If the file is not there.
    """
    if isinstance(path_or_state_dict, Mapping):
        name = "the state dict"
        state_dict, note = network_in(path_or_state_dict, name, averaged)
        check_sizes(name, state_dict)
    else:
        name = str(path_or_state_dict)
        state_dict, note = read_state_dict(path_or_state_dict, averaged)
    headless = not any(layer.name in TRANSFORMER_HEADS for layer in model.layers)
    with hinting(shapes_of(state_dict), model.name):
        found = origins(model, state_dict)
        keys = _keys(found)
        check_names(name, model.name, keys, _tensors(model, state_dict, headless))
        values = {
            origin.variable.path: _converted(origin, state_dict, name, origin.variable.shape)
            for origin in found
        }
    Checkpoint(name, values, _names(found)).check_finite()
    for origin in found:
        origin.variable.assign(values[origin.variable.path])
    if note:
        warnings.warn(f"{model.name}: of {name}, {note}.", stacklevel=2)
    return len(keys)


def read_checkpoint(model, path, averaged=True):
    """The `Checkpoint` in a PyTorch file, by the paths of a model's variables, of any shapes.

    The model is of the checkpoint's variant; its size, its classes, and whether it has heads and a
    distillation token may differ. No tensor is left over, but some that the model needs may lack.
    """
    name, (state_dict, note) = str(path), read_state_dict(path, averaged)
    with hinting(shapes_of(state_dict), model.name):
        found = [_present_tokens(origin, state_dict) for origin in origins(model, state_dict)]
        tensors = _tensors(model, state_dict, without_heads=True)
        check_names(name, model.name, _keys(found) & tensors, tensors)
        values = {
            origin.variable.path: _converted(origin, state_dict, name)
            for origin in found
            if all(key in state_dict for key in origin.keys)
        }
    for key, layer in _HEADS.items():  # those that the model lacks too
        if f"{key}.weight" in state_dict and f"{key}.bias" in state_dict:
            kernel = np.transpose(_array(state_dict, f"{key}.weight", name))
            values.setdefault(f"{layer}/kernel", kernel)
            values.setdefault(f"{layer}/bias", _array(state_dict, f"{key}.bias", name))
    checkpoint = Checkpoint(name, values, _names(found), note=note)
    checkpoint.check_finite()
    return checkpoint


def shapes_of(state_dict):
    """Names to shapes."""
    return {name: tuple(tensor.shape) for name, tensor in state_dict.items()}


def _names(found):
    return {origin.variable.path: " + ".join(origin.keys) for origin in found}


def _keys(found):
    return {key for origin in found for key in origin.keys}


def _present_tokens(origin, state_dict):
    """The origin of the class tokens, as many as the checkpoint has, not the model."""
    if origin.keys[0] != "cls_token":
        return origin
    present = tuple(key for key in ("cls_token", "dist_token") if key in state_dict)
    return origin._replace(keys=present or ("cls_token",))


def _tensors(model, state_dict, without_heads):
    """Names of the tensors that need a place in the model."""
    names = {name for name in state_dict if not name.endswith(_COUNTER)}
    if not without_heads:
        return names
    heads = TRANSFORMER_HEADS if is_transformer(model.layers) else CONVOLUTIONAL_HEADS
    return {name for name in names if name.rpartition(".")[0] not in heads}


def read_state_dict(path, averaged=True):
    """The tensors of a file by name, and what `network_in` says of it; nothing pickled is run."""
    tensors, note = network_in(read_file(path), path, averaged)
    check_sizes(path, tensors)
    return tensors, note


def _array(state_dict, key, name):
    tensor = state_dict[key]
    try:
        if hasattr(tensor, "detach"):  # PyTorch's; it may want gradients, or be bfloat16
            tensor = tensor.detach().cpu()
            tensor = tensor if tensor.is_complex() else tensor.float()
        tensor = np.asarray(tensor)
        if np.iscomplexobj(tensor):
            raise TypeError("complex numbers")
        with np.errstate(over="ignore"):  # what becomes infinite is refused later, by its name
            return tensor.astype(np.float32, copy=False)
    except (ValueError, TypeError, RuntimeError) as error:  # sparse, quantised, without data
        reason = str(error).split("\n")[0].rstrip(".")
        raise Misfit(f"{name}: tensor {key} does not hold plain numbers ({reason}).") from error


def _converted(origin, state_dict, name, shape=None):
    """A variable's value, of the shape that it must have, if any."""
    tensors = [_array(state_dict, key, name) for key in origin.keys]
    try:
        value = converted(origin.variable, *tensors)
        if shape is None or value.shape == tuple(shape):
            return value
    except (ValueError, TypeError):  # not even the number of axes is right
        pass
    shapes = ", ".join(str(tuple(state_dict[key].shape)) for key in origin.keys)
    raise Misfit(
        f"{name}: tensor {' + '.join(origin.keys)} of shape {shapes} does not fit "
        f"{origin.variable.path} of shape {tuple(origin.variable.shape)}."
    )
