"""PyTorch checkpoints into Keras models: the files, the keys and the shapes are checked here.

The names of the tensors and their layouts are in `pytorch_layouts.py`.
"""

import os
import pathlib
import zipfile
from collections.abc import Mapping

import keras
import numpy as np

from pit_keras.weights.pytorch_layouts import (
    CONVOLUTIONAL_HEADS,
    TRANSFORMER_HEADS,
    converted,
    is_transformer,
    origins,
)
from pit_keras.weights.recognition import Checkpoint, Misfit, check_names, hinting

_WRAPPERS = ("model", "state_dict")  # keys under which training scripts put the state dict
_COUNTER = ".num_batches_tracked"  # a BatchNorm's; nothing is computed from it
_HEADS = {key: key for key in TRANSFORMER_HEADS} | dict.fromkeys(CONVOLUTIONAL_HEADS, "head")


def load_pytorch_weights(
    model: keras.Model, path_or_state_dict: str | os.PathLike | Mapping
) -> int:
    """Carries a PyTorch checkpoint over into a PiT, ViT, ResNet, RegNetY or DETR, all or nothing.

    Every tensor has to find its place and every place its tensor, BatchNorm's statistics included;
    a model without its top ignores the checkpoint's heads.

    Args:
        path_or_state_dict: A `.safetensors` or `.pth` file, or a mapping from names to tensors or
            arrays, in the authors', timm's or (ResNet-50) torchvision's names. A detector's are
            those of DETR's authors, with `backbone.0.body.` before its backbone's names.

    Returns:
        The number of tensors carried over.

    Raises:
        ValueError: If a tensor is missing, left over or of the wrong shape (it is named), or if the
            file is not a state dict. The model is then unchanged.
        FileNotFoundError: If the file is not there.
    """
    if isinstance(path_or_state_dict, Mapping):
        name, state_dict = "the state dict", _unwrapped(path_or_state_dict)
    else:
        name, state_dict = str(path_or_state_dict), read_state_dict(path_or_state_dict)
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
    return len(keys)


def read_checkpoint(model, path):
    """The `Checkpoint` in a PyTorch file, by the paths of a model's variables, of any shapes.

    The model is of the checkpoint's variant; its size, its classes, and whether it has heads and a
    distillation token may differ. No tensor is left over, but some that the model needs may lack.
    """
    name, state_dict = str(path), read_state_dict(path)
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
            values.setdefault(f"{layer}/kernel", np.transpose(_array(state_dict[f"{key}.weight"])))
            values.setdefault(f"{layer}/bias", _array(state_dict[f"{key}.bias"]))
    checkpoint = Checkpoint(name, values, _names(found))
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
    try:
        damaged = _damaged_member(path)
        # weights_only: tensors and plain containers are read, any other pickled object is refused.
        content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(
            f"{path} cannot be read safely as a PyTorch state dict: it is damaged, or holds more "
            "than tensors; torch.save(model.state_dict(), path) writes one."
        ) from error
    if damaged:
        raise ValueError(f"{path} is damaged: the checksum of {damaged} in it does not match.")
    return content


def _damaged_member(path):
    """The first file in an archive whose checksum, which PyTorch ignores, does not match."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _unwrapped(content, name="the checkpoint"):
    """The state dict itself, also where a training script saved more than that."""
    if isinstance(content, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
        if content and all(
            isinstance(key, str) and hasattr(value, "shape") for key, value in content.items()
        ):
            return content
    raise ValueError(f"{name} is not a state dict, a mapping from names to tensors.")


def _array(tensor):
    if hasattr(tensor, "detach"):  # PyTorch's; it may want gradients, or be bfloat16 unlike NumPy
        tensor = tensor.detach().cpu()
        tensor = tensor if tensor.is_complex() else tensor.float()
    tensor = np.asarray(tensor)
    if np.iscomplexobj(tensor):
        raise ValueError("complex numbers")
    with np.errstate(over="ignore"):  # what becomes infinite is refused later, by its name
        return tensor.astype(np.float32, copy=False)


def _converted(origin, state_dict, name, shape=None):
    """A variable's value, of the shape that it must have, if any."""
    try:
        value = converted(origin.variable, *(_array(state_dict[key]) for key in origin.keys))
        if shape is None or value.shape == tuple(shape):
            return value
    except (ValueError, TypeError):  # not even the number of axes is right, or no plain tensor
        pass
    shapes = ", ".join(str(tuple(state_dict[key].shape)) for key in origin.keys)
    raise Misfit(
        f"{name}: tensor {' + '.join(origin.keys)} of shape {shapes} does not fit "
        f"{origin.variable.path} of shape {tuple(origin.variable.shape)}."
    )
