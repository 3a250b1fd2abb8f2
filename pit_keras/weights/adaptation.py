"""A checkpoint of one size, number of classes or channels, made to fit a model of another.

The conventions are timm's (`resample_abs_pos_embed`, `adapt_input_conv`).
"""

import collections
import dataclasses
import math

import numpy as np
from keras import ops

from pit_keras.models.attention import TransformerBlock
from pit_keras.models.resampling import resampled
from pit_keras.weights.recognition import Checkpoint, Misfit

HEADS = ("head", "head_dist", "class_head")  # a classifier's two, a detector's
DETECTOR_HEAD = "class_head/bias"
TOKENS = "class_tokens/class_tokens"  # (1, T, C)
POSITIONS = "position_embedding/position_embedding"  # PiT's (1, h, w, C), ViT's (1, T + h * w, C)
RGB = 3


def checkpoint_of(model, source):
    """A model of `create_model` as a `Checkpoint`, whose values are the model's variables."""
    variables = {variable.path: variable for variable in model.weights}
    return Checkpoint(source, variables, grid=_patch_grid(model), settings=_settings(model))


@dataclasses.dataclass(frozen=True)
class Report:
    """How a checkpoint was carried over into a model. Its `str` says it in one sentence."""

    source: str
    model: str
    tensors: int  # the model's variables that got their value from the checkpoint
    variables: int  # that the model has
    new_heads: bool = False  # whether the model's heads stay as they were initialised
    heads: str | None = None  # why the checkpoint's heads were left out
    # Before and after resampling or adaptation; None if nothing changed.
    grids: tuple[tuple[int, int], tuple[int, int]] | None = None
    channels: tuple[int, int] | None = None
    distillation: str | None = None  # what was done about a distillation token
    note: str | None = None  # what of the file was passed over, such as raw weights

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
        parts += [part for part in (self.note, self.distillation, self.heads) if part]
        return "; ".join(parts) + "."


def _patch_grid(model):
    """Height and width in patches that a PiT's or ViT's position embedding is for, or None."""
    layers = {layer.name: layer for layer in model.layers}
    if "position_embedding" not in layers:
        return None
    # An embedding that is resampled at run time has a grid of its own.
    own = layers["position_embedding"].grid
    return own or tuple(layers["patch_embedding"].output.shape[1:3])


def _settings(model):
    blocks = [layer for layer in model.layers if isinstance(layer, TransformerBlock)]
    if not blocks:
        return {}
    stages = [block.name.partition("_")[0] for block in blocks]
    depths = tuple(collections.Counter(stages).values())
    heads = tuple(dict(zip(stages, (block.num_heads for block in blocks), strict=True)).values())
    patches = model.get_layer("patch_embedding")
    sizes = {"patch_size": patches.kernel_size[0], "stride": patches.strides[0]}
    sizes["head_dim"] = patches.filters // heads[0]
    if len(depths) == 1:
        return sizes | {"depth": depths[0], "heads": heads[0]}
    return sizes | {"depths": depths, "heads": heads}


def adapted(checkpoint, target, across_distillation):
    """A checkpoint's values for a model of other classes, size, channels or distillation.

    Returns:
        The values by variable path, and the fields of the `Report` that changed. Heads of another
        number of classes are left out; all else may still not fit.
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
        is_whole = kernel is not None and bias is not None
        if not is_whole or kernel.ndim != 2 or bias.shape != kernel.shape[1:]:
            names = [checkpoint.name(f"{head}/{part}") for part in ("kernel", "bias")]
            raise Misfit(
                f"{checkpoint.source} has an incomplete classifier: {' and '.join(names)} must be "
                "there and have matching shapes."
            )


def _adapt_tokens(values, checkpoint, target, across_distillation):
    if TOKENS not in values or TOKENS not in target.shapes:
        return {}
    shape, wanted = values[TOKENS].shape, target.shapes[TOKENS]
    if len(shape) != 3 or shape[1] not in (1, 2) or (shape[0], shape[2]) != (1, wanted[2]):
        return {}  # no question of distillation: the shape itself is refused later
    have, want = shape[1], wanted[1]
    if have == want:
        return {}
    if not across_distillation:
        kinds = ("is distilled and", "is not") if have > want else ("is not distilled and", "is")
        remedy = "drops" if have > want else "copies the class token for"
        raise Misfit(
            f"{checkpoint.source} {kinds[0]} {target.source} {kinds[1]}: create its other form, or "
            f"choose weights_across_distillation=True, which {remedy} the distillation token and "
            "its head."
        )
    # The class token, its position and its head alone, or once more for distillation.
    tokens = [0] * want
    values[TOKENS] = values[TOKENS][:, tokens]
    if POSITIONS in values and values[POSITIONS].ndim == 3:
        positions = values[POSITIONS]
        values[POSITIONS] = np.concatenate([positions[:, tokens], positions[:, have:]], axis=1)
    for part in ("kernel", "bias"):
        values.pop(f"head_dist/{part}", None)
        if want == 2 and f"head/{part}" in values:
            values[f"head_dist/{part}"] = values[f"head/{part}"]
    done = "dropped" if have > want else "copied from the class token's"
    return {"distillation": f"distillation token and its head {done}"}


def _adapt_heads(values, checkpoint, target):
    bias = main_head(target.shapes) or main_head(values)
    have, want = values.get(bias), target.shapes.get(bias)
    if want is not None and have is None:
        rest = {path for path in target.shapes if not is_head(path)}
        if not rest <= set(values):
            return {}  # it is of another model: all that is missing is named later
        raise Misfit(
            f"{checkpoint.source} has no classifier (no tensor {checkpoint.name(bias)}), "
            f"and {target.source} has one: create it with include_top=False."
        )
    if have is None or (want is not None and have.shape == want):
        return {}
    for path in filter(is_head, list(values)):
        del values[path]
    if want is None:
        return {"heads": "heads left out, since the model has none"}
    classes = [shape[0] - (bias == DETECTOR_HEAD) for shape in (have.shape, want)]
    return {
        "heads": f"heads not carried over, since they are for {classes[0]} classes and the "
        f"model has {classes[1]}: train them"
    }


def is_head(path):
    """Whether a variable belongs to a classifier's heads or a detector's."""
    return path.split("/")[0] in HEADS


def main_head(paths):
    """The path of the bias that shows the number of classes, or None.

    A detector's has a class more, which stands for no object.
    """
    return next((path for path in ("head/bias", DETECTOR_HEAD) if path in paths), None)


def _adapt_channels(values, checkpoint, target):
    path, shape = next(iter(target.shapes.items()))  # of the kernel that looks at the images
    kernel = values.get(path)  # (h, w, channels, C)
    if kernel is None or kernel.ndim != 4 or kernel.shape[2] == shape[2]:
        return {}
    if kernel.shape[2] != RGB:
        raise Misfit(
            f"{checkpoint.source} is for images of {kernel.shape[2]} channels and {target.source} "
            f"for {shape[2]}; only checkpoints for RGB can be adapted."
        )
    values[path] = adapted_input_kernel(kernel, shape[2])
    return {"channels": (RGB, shape[2])}


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
        return {}  # no embedding: the shape itself is refused later
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
    side = math.isqrt(length)
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
