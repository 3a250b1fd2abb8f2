"""A checkpoint in Keras' layout, wherever it came from, and which model it was made for."""

import contextlib
import dataclasses
import math
import re
from typing import NamedTuple

import numpy as np

from pit_keras.models.detr import VARIANTS as DETECTORS
from pit_keras.models.pit import VARIANTS as PITS
from pit_keras.models.vit import VARIANTS as VITS

# The first normalisation of each block shows where it stands and how wide it is: PyTorch's names
# and Keras'. Blocks are counted from 0 and from 1.
_BLOCKS = (
    re.compile(r"(?:transformers\.(?P<stage>\d+)\.)?blocks\.\d+\.norm1\.weight"),
    re.compile(r"stage(?P<stage>\d+)_block\d+/attention_norm/gamma"),
)
_PATCHES = (  # PyTorch's (C, channels, h, w), then Keras' (h, w, channels, C)
    ("patch_embed.conv.weight", 1),
    ("patch_embed.proj.weight", 1),
    ("patch_embedding/kernel", 2),
)
_HEADS = ("head.bias", "head/bias", "fc.bias", "head.fc.bias")
_DETECTOR_HEADS = ("class_head/bias", "class_embed.bias")
# A tensor that only this network has, and its first axis in PyTorch.
_CONVOLUTIONAL = {
    "resnet50": ("layer3.5.conv3.weight", 1024),
    "regnety_160": ("s4.b1.conv3.conv.weight", 3024),
}


class Misfit(ValueError):
    """A checkpoint does not fit the model that it is loaded into."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The values of a checkpoint in Keras' layout, by the paths of variables."""

    source: str  # its name in messages, such as its file
    values: dict[str, np.ndarray]  # with heads, even if the model that it is meant for has none
    names: dict[str, str] = dataclasses.field(default_factory=dict)  # the file's, by path
    grid: tuple[int, int] | None = None  # of its positions; None where the file does not tell
    settings: dict = dataclasses.field(default_factory=dict)  # a PiT's or ViT's fields of its row
    note: str | None = None  # what of the file was passed over

    def name(self, path):
        """The file's name of the tensor of a variable."""
        return self.names.get(path, path)

    @property
    def shapes(self):
        """Variable paths to shapes, in Keras' layout."""
        return {path: tuple(value.shape) for path, value in self.values.items()}

    def check_finite(self):
        """Raises ValueError if a value is NaN or infinite, naming the tensor."""
        for path, value in self.values.items():
            if not np.isfinite(value).all():
                raise ValueError(
                    f"{self.source}: tensor {self.name(path)} holds values that are not finite "
                    "(NaN or infinite)."
                )


def check_names(source, model_name, wanted, found):
    """Raises Misfit, naming the first few, for tensors that are missing or left over."""
    if missing := wanted - found:
        raise Misfit(
            f"{source} does not fit {model_name}: it lacks {len(missing)} of the model's "
            f"{len(wanted)} tensors: {_listed(missing)}."
        )
    if left_over := found - wanted:
        raise Misfit(
            f"{source} does not fit {model_name}: {len(left_over)} of its tensors would be left "
            f"over: {_listed(left_over)}."
        )


def _listed(names):
    return ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")


class Description(NamedTuple):
    """A checkpoint as its shapes show it; None where they do not."""

    name: str | None  # the model that it fits in all but size, classes and channels
    classes: int | None
    channels: int | None  # of the images
    grid: tuple[int, int] | None  # height and width in patches; a ViT's is taken to be square


def describe(shapes):
    """Describes a checkpoint by the shapes of its tensors, in PyTorch's names or Keras' paths."""
    classes = next((shapes[name][0] for name in _HEADS if shapes.get(name)), None)
    for name, (key, width) in _CONVOLUTIONAL.items():
        if shapes.get(key, ())[:1] == (width,):
            return Description(name, classes, channels=None, grid=None)
    tokens, name = _tokens(shapes), _transformer(shapes)
    if name and tokens == 2:
        name += "_distilled"
    kernels = ((shapes.get(name, ()), axis) for name, axis in _PATCHES)
    channels = next((shape[axis] for shape, axis in kernels if len(shape) == 4), None)
    return Description(name, classes, channels, _grid(shapes, tokens))


def hint(shapes, name):
    """A sentence to end a message with: the model of a checkpoint, if it is not `name`."""
    if name not in DETECTORS and any(head in shapes for head in _DETECTOR_HEADS):
        return " It is a detector's checkpoint."
    looks_like = describe(shapes).name
    return f" It looks like a checkpoint of {looks_like}." if looks_like not in (None, name) else ""


@contextlib.contextmanager
def hinting(shapes, name):
    """Adds the `hint` to a Misfit raised within it."""
    try:
        yield
    except Misfit as error:
        raise Misfit(f"{error}{hint(shapes, name)}") from error


def _transformer(shapes):
    """The plain variant with these widths and depths, or None."""
    widths = {}
    for name, shape in shapes.items():
        match = next(filter(None, (pattern.fullmatch(name) for pattern in _BLOCKS)), None)
        if match and len(shape) == 1:
            widths.setdefault(int(match["stage"] or 0), []).append(shape[0])
    stages = [widths[stage] for stage in sorted(widths)]
    for name, row in {**PITS, **VITS}.items():
        depths = row.depths if name in PITS else (row.depth,)
        if stages == [[w] * depth for w, depth in zip(row.widths(), depths, strict=True)]:
            return name
    return None


def _tokens(shapes):
    for name in ("cls_token", "class_tokens/class_tokens"):
        if len(shapes.get(name, ())) == 3:
            return shapes[name][1] + ("dist_token" in shapes)
    return None


def _grid(shapes, tokens):
    shape = shapes.get("pos_embed") or shapes.get("position_embedding/position_embedding") or ()
    if len(shape) == 4:
        return tuple(shape[2:] if "pos_embed" in shapes else shape[1:3])
    if len(shape) == 3 and tokens is not None:
        side = math.isqrt(max(shape[1] - tokens, 0))
        return (side, side) if side * side == shape[1] - tokens else None
    return None
