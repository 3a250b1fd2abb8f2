"""The contents of PyTorch's files: safetensors, and pickles of which nothing is run.

What a training program put beside the tensors (its arguments, NumPy's numbers, whole modules) is
read as stand-ins: objects that keep what was stored in them and can do nothing.
"""

import collections
import pathlib
import re
import zipfile
from collections.abc import Mapping

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")  # the last: .pth.tar
_NAMESPACE = "argparse.Namespace"
_MOST_NUMBERS = 2**28  # in a tensor: 1 GB, three times the largest network here


class _StandIn:
    """An object of a class that is not loaded; only its attributes are kept."""

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        if isinstance(state, dict):
            self.__dict__.update(state)


class _StandInDict:
    def __new__(cls, *args):
        return collections.OrderedDict()


class _StandInDeque:
    def __new__(cls, *args):
        return []


# PyTorch's reader fills these two types only, so subclasses must become one of them.
_BY_ENDING = {"dict": _StandInDict, "deque": _StandInDeque}


def read_file(path):
    """What a file holds: for safetensors a dictionary of arrays, else whatever was pickled."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    with path.open("rb") as file:
        begins = file.read(10)
    if path.suffix == ".safetensors" or begins[8:] == b'{"':  # under another ending too
        return _read_safetensors(path)
    return _read_pickle(path)


def _read_safetensors(path):
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs safetensors: pip install pit_keras[convert]."
        ) from error
    try:
        return safetensors.numpy.load_file(path)
    except OSError:
        raise
    except Exception as error:  # beside its own: a type that NumPy lacks, sizes that overflow
        reason = str(error).rstrip(".")
        raise ValueError(f"{path} is not a readable safetensors file ({reason}).") from error


def _read_pickle(path):
    try:
        import torch
        from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs PyTorch 2.6 or later: pip install torch, or give a "
            ".safetensors file."
        ) from error
    fault, is_whole = None, False
    try:
        fault = _fault_of_archive(path)
        is_whole = zipfile.is_zipfile(path) and fault is None
        if fault is None:
            # What PyTorch's reader does not know. Of files before PyTorch 1.6 it cannot list it.
            foreign = get_unsafe_globals_in_checkpoint(path) if is_whole else [_NAMESPACE]
            with safe_globals([(_stand_in(name), name) for name in foreign]):
                # weights_only: PyTorch's reader calls only its own functions and stand-ins.
                return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = "it is damaged, or holds more than tensors"
        if is_whole:
            refused = named[1] if named else "a part of it"
            reason = f"it is whole, but {refused} is refused"
        raise ValueError(
            f"{path} cannot be read safely as a PyTorch state dict: {reason}; "
            "torch.save(model.state_dict(), path) writes one."
        ) from error
    raise ValueError(f"{path} is {fault}")


def _fault_of_archive(path):
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():  # PyTorch ignores the checksums
            return f"damaged: the checksum of {damaged} in it does not match."
        names = {pathlib.PurePath(name).name for name in archive.namelist()}
    if "constants.pkl" in names:
        return (
            "a TorchScript program, which is not run here; save its weights, "
            "torch.save(torch.jit.load(path).state_dict(), other_path), and give that file."
        )
    if "data.pkl" not in names:
        return "an archive, but not one of torch.save; give a state dict that it wrote."
    return None


def _stand_in(name):
    endings = (stand_in for end, stand_in in _BY_ENDING.items() if name.lower().endswith(end))
    # A class of its own for each name, as PyTorch's reader looks them up by it.
    return type(name, (next(endings, _StandIn),), {})


def as_mapping(content):
    """A mapping as it is, the state dict of a stand-in for a module; else an empty mapping."""
    if isinstance(content, Mapping):
        return content
    state = {}
    if isinstance(content, _StandIn) and isinstance(getattr(content, "_modules", None), Mapping):
        for kind in ("_parameters", "_buffers"):
            state.update(getattr(content, kind, {}))
        for name, module in content._modules.items():
            state.update({f"{name}.{key}": value for key, value in as_mapping(module).items()})
    return state


def check_sizes(name, tensors):
    """Raises ValueError for tensors that claim more numbers than any network here could have."""
    for key, tensor in tensors.items():
        numbers = 1
        for side in tensor.shape:
            numbers *= int(side)
        if numbers > _MOST_NUMBERS:
            raise ValueError(
                f"{name}: tensor {key} of shape {tuple(tensor.shape)} is too large for any network "
                "here."
            )
