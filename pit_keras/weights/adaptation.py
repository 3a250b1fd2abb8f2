"""A checkpoint of one size, number of classes or channels, made to fit a model of another.

Pure functions on arrays. The conventions are timm's (`resample_abs_pos_embed`, `adapt_input_conv`).
"""

import dataclasses
import math

import numpy as np
from keras import ops

from pit_keras.models.resampling import resampled
from pit_keras.weights.recognition import Misfit

HEADS = ("head", "head_dist", "class_head")  # a classifier's two, a detector's
DETECTOR_HEAD = "class_head/bias"
TOKENS = "class_tokens/class_tokens"  # (1, T, C)
POSITIONS = "position_embedding/position_embedding"  # PiT's (1, h, w, C), ViT's (1, T + h * w, C)
RGB = 3


@dataclasses.dataclass(frozen=True)
class Target:
    """What a model expects.

    Attributes:
        name: The model's name.
        shapes: Variable paths to shapes.
        grid: Height and width of the grid of patches; None if the model has none.
        input_kernel: Path of the kernel that looks at the images, (h, w, channels, C).
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    grid: tuple[int, int] | None
    input_kernel: str

    @classmethod
    def of(cls, model):
        """The description of a model of `create_model`."""
        return cls(
            name=model.name,
            shapes={variable.path: tuple(variable.shape) for variable in model.weights},
            grid=patch_grid_of(model),
            input_kernel=model.weights[0].path,
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """What happened to a checkpoint on its way into a model. Its `str` says it in one sentence.

    Attributes:
        source: The checkpoint.
        model: The model's name.
        tensors: Number of the model's variables that got their value from the checkpoint.
        variables: Number of variables that the model has.
        new_heads: Whether the model's heads stay as they were initialised.
        heads: Why the checkpoint's heads were left out; None if they were not.
        grids: The position embedding's grid before and after resampling; None if it was kept.
        channels: Input channels before and after; None if they were kept.
        distillation: What was done about a distillation token; None if nothing.
    """

    source: str
    model: str
    tensors: int
    variables: int
    new_heads: bool = False
    heads: str | None = None
    grids: tuple[tuple[int, int], tuple[int, int]] | None = None
    channels: tuple[int, int] | None = None
    distillation: str | None = None

    def __str__(self):
        parts = [
            f"{self.model}: {self.tensors} of {self.variables} variables carried over from "
            f"{self.source}"
        ]
        if self.grids:
            (h, w), (height, width) = self.grids
            parts.append(f"position embedding resampled from {h} x {w} to {height} x {width}")
        if self.channels:
            parts.append("input channels adapted from {} to {}".format(*self.channels))
        parts += [part for part in (self.distillation, self.heads) if part]
        return "; ".join(parts) + "."


def patch_grid_of(model):
    """Height and width in patches that a PiT's or ViT's position embedding is for, or None."""
    layers = {layer.name: layer for layer in model.layers}
    if "position_embedding" not in layers:
        return None
    # An embedding that is resampled at run time has a grid of its own.
    own = layers["position_embedding"].grid
    return own or tuple(layers["patch_embedding"].output.shape[1:3])


def adapted(checkpoint, target, across_distillation=False):
    """The values that a model needs, from a checkpoint that differs from it in permitted ways.

    Args:
        checkpoint: A `Checkpoint`.
        target: A `Target`.
        across_distillation: Whether a distilled checkpoint may go into a plain model, which drops
            the distillation token and its head, and a plain one into a distilled model, which
            copies the class token and its head.

    Returns:
        The values by variable path, and a dictionary of the `Report`'s fields that differ from
        None. Heads of another number of classes are left out; all else may still not fit.

    Raises:
        Misfit: If the checkpoint lacks heads that the model has, or is distilled and the model is
            not, or the reverse, and this was not chosen; if its positions are no square grid, or
            its channels cannot be adapted.
    """
    _check_heads(checkpoint)
    values = dict(checkpoint.values)
    changes = _adapt_tokens(values, checkpoint, target, across_distillation)
    for step in (_adapt_heads, _adapt_channels, _adapt_positions):
        changes |= step(values, checkpoint, target)
    return values, changes


def _check_heads(checkpoint):
    """Half a head, or one of a distilled model's two, is not a head."""
    values = checkpoint.values
    distilled = TOKENS in values and values[TOKENS].ndim == 3 and values[TOKENS].shape[1] == 2
    for head in HEADS:
        kernel, bias = (values.get(f"{head}/{part}") for part in ("kernel", "bias"))
        needed = head == "head_dist" and distilled and "head/kernel" in values
        if kernel is None and bias is None and not needed:
            continue
        for part, value in (("kernel", kernel), ("bias", bias)):
            if value is None:
                name = checkpoint.name(f"{head}/{part}")
                raise Misfit(f"{checkpoint.source} lacks a part of its classifier: {name}.")
        if kernel.ndim != 2 or bias.shape != kernel.shape[1:]:
            names = [checkpoint.name(f"{head}/{part}") for part in ("kernel", "bias")]
            raise Misfit(
                f"{checkpoint.source}: {' and '.join(names)} do not go together; in Keras' layout "
                f"their shapes are {kernel.shape} and {bias.shape}."
            )


def _adapt_tokens(values, checkpoint, target, across_distillation):
    if TOKENS not in values or TOKENS not in target.shapes:
        return {}
    shape, wanted = values[TOKENS].shape, target.shapes[TOKENS]
    if len(shape) != 3 or shape[1] not in (1, 2) or (shape[0], shape[2]) != (1, wanted[2]):
        return {}  # no question of distillation: the shape is told as it is
    have, want = shape[1], wanted[1]
    if have == want:
        return {}
    if not across_distillation:
        raise Misfit(_distillation_message(checkpoint, target, distilled=have > want))
    return _drop_distillation(values) if have > want else _copy_distillation(values)


def _distillation_message(checkpoint, target, distilled):
    if distilled:
        return (
            f"{checkpoint.source} is distilled and {target.name} is not: create the distilled "
            "model, or choose weights_across_distillation=True, which keeps the class token and "
            "its head and drops those of distillation."
        )
    return (
        f"{checkpoint.source} is not distilled and {target.name} is: create the plain model, or "
        "choose weights_across_distillation=True, which starts the distillation token and its head "
        "as copies of the class token and its head."
    )


def _drop_distillation(values):
    values[TOKENS] = values[TOKENS][:, :1]
    if POSITIONS in values and values[POSITIONS].ndim == 3:
        values[POSITIONS] = np.delete(values[POSITIONS], 1, axis=1)
    for path in [path for path in values if path.startswith("head_dist/")]:
        del values[path]
    return {"distillation": "distillation token and its head dropped"}


def _copy_distillation(values):
    values[TOKENS] = np.repeat(values[TOKENS], 2, axis=1)
    if POSITIONS in values and values[POSITIONS].ndim == 3:
        positions = values[POSITIONS]
        values[POSITIONS] = np.concatenate([positions[:, :1], positions], axis=1)
    for path in [path for path in values if path.startswith("head/")]:
        values[path.replace("head/", "head_dist/")] = values[path]
    return {"distillation": "distillation token and its head copied from the class token's"}


def _adapt_heads(values, checkpoint, target):
    bias = main_head(target.shapes) or main_head(values)
    have, want = values.get(bias), target.shapes.get(bias)
    if want is not None and have is None:
        rest = {path for path in target.shapes if path.split("/")[0] not in HEADS}
        if not rest <= set(values):
            return {}  # it is of another model: what is missing is told in full
        raise Misfit(
            f"{checkpoint.source} has no classifier (no tensor {checkpoint.name(bias)}), "
            f"and {target.name} has one: it fits a model with include_top=False."
        )
    if have is None or (want is not None and have.shape == want):
        return {}
    for path in [path for path in values if path.split("/")[0] in HEADS]:
        del values[path]
    if want is None:
        return {"heads": "heads left out, since the model has none"}
    classes = [shape[0] - (bias == DETECTOR_HEAD) for shape in (have.shape, want)]
    return {
        "heads": f"heads not carried over, since they are for {classes[0]} classes and the "
        f"model has {classes[1]}: train them"
    }


def main_head(paths):
    """The path of the bias that tells the number of classes, or None.

    A detector's has a class more, which stands for no object.
    """
    return next((path for path in ("head/bias", DETECTOR_HEAD) if path in paths), None)


def _adapt_channels(values, checkpoint, target):
    kernel = values.get(target.input_kernel)
    want = target.shapes[target.input_kernel]
    if kernel is None or kernel.ndim != 4 or kernel.shape[2] == want[2]:
        return {}
    if kernel.shape[2] != RGB:
        raise Misfit(
            f"{checkpoint.source} is for images of {kernel.shape[2]} channels and {target.name} "
            f"for {want[2]}; only checkpoints for RGB can be adapted."
        )
    values[target.input_kernel] = adapted_input_kernel(kernel, want[2])
    return {"channels": (RGB, want[2])}


def adapted_input_kernel(kernel, channels):
    """An RGB kernel for images of other channels, (h, w, 3, C) -> (h, w, channels, C).

    One channel gets the sum over RGB, so that a grey image gives the same output; others get R, G,
    B, R, ... scaled by 3 / channels, which keeps the output's magnitude.
    """
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    repeated = np.tile(kernel, (1, 1, math.ceil(channels / RGB), 1))[:, :, :channels]
    return repeated * np.float32(RGB / channels)


def _adapt_positions(values, checkpoint, target):
    positions, want = values.get(POSITIONS), target.shapes.get(POSITIONS)
    if positions is None or want is None or positions.ndim != len(want):
        return {}
    if positions.shape[0] != 1 or 0 in positions.shape:
        return {}  # no embedding: the shape is told as it is
    if positions.ndim == 4:
        have_grid, want_grid = positions.shape[1:3], want[1:3]
    else:
        tokens = target.shapes[TOKENS][1]
        if positions.shape[1] <= tokens:
            return {}
        have_grid = _sequence_grid(positions.shape[1] - tokens, checkpoint, target)
        want_grid = target.grid
    if have_grid == want_grid:
        return {}
    if positions.ndim == 4:
        values[POSITIONS] = resampled_map(positions, want_grid)
    else:
        values[POSITIONS] = resampled_sequence(positions, have_grid, want_grid, tokens)
    return {"grids": (have_grid, want_grid)}


def _sequence_grid(length, checkpoint, target):
    """The grid that a sequence of positions was: the checkpoint's own, or a square, as in timm."""
    if checkpoint.grid:
        return checkpoint.grid
    side = math.isqrt(max(length, 0))
    if side * side == length:
        return side, side
    if length == math.prod(target.grid):
        return target.grid
    raise Misfit(
        f"{checkpoint.source}: the {length} positions of {checkpoint.name(POSITIONS)} are no "
        "square grid, so they cannot be resampled."
    )


def resampled_map(positions, grid):
    """A position embedding (1, h, w, C) on another grid, (1, H, W, C)."""
    return ops.convert_to_numpy(resampled(positions, grid))


def resampled_sequence(positions, old_grid, grid, tokens):
    """The same for a sequence (1, T + h * w, C) whose first T = `tokens` have no place."""
    channels = positions.shape[-1]
    prefix, spatial = positions[:, :tokens], positions[:, tokens:]
    spatial = resampled_map(spatial.reshape(1, *old_grid, channels), grid)  # (1, H, W, C)
    return np.concatenate([prefix, spatial.reshape(1, -1, channels)], axis=1)
