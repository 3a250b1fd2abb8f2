"""Weights of every format, size and origin: into a model, or into a `.keras` file."""

import dataclasses
import os
import pathlib
import shlex
import tempfile
import warnings

import keras

from pit_keras.errors import undone_at_the_end
from pit_keras.models.detr import Detr
from pit_keras.models.registry import build_model, variant_of
from pit_keras.weights import released
from pit_keras.weights.adaptation import Report, adapted, checkpoint_of, is_head, main_head
from pit_keras.weights.checkpoint_files import SUFFIXES as PYTORCH_SUFFIXES
from pit_keras.weights.keras_files import load_h5, read_keras
from pit_keras.weights.pytorch import read_checkpoint, read_state_dict, shapes_of
from pit_keras.weights.recognition import (
    Checkpoint,
    Description,
    Misfit,
    check_names,
    describe,
    hint,
    hinting,
)


class NewHeadsWarning(UserWarning):
    """Weights were loaded without their heads, which have another number of classes."""


def load_weights(
    model: keras.Model,
    weights: str | os.PathLike,
    *,
    across_distillation: bool = False,
    averaged: bool = True,
) -> Report:
    """Loads weights into a model of `create_model`, all or nothing; returns a `Report`.

    A checkpoint of another image size, patch stride, number of classes or of channels is adapted:
    its position embedding is resampled, its heads are left out with a warning, its RGB kernel is
    summed or repeated. A `.weights.h5` file tells too little for that and must fit as it is.

    Args:
        weights: "imagenet" for the released weights of the model, or the path of a `.keras`,
            `.weights.h5`, `.safetensors` or `.pth` file.
        across_distillation: Whether a distilled checkpoint may go into a plain model, which drops
            the distillation token and its head, and a plain one into a distilled model, which
            copies them from the class token's.
        averaged: Whether averaged weights are taken where a training program's checkpoint has raw
            ones beside them, with a warning that says so.

    Raises:
        FileNotFoundError: If the file is not there, or released weights are neither on this machine
            nor within reach.
        ValueError: If the format is unknown, the file damaged or altered, or the weights do not fit
            the model. The model is then unchanged.
    """
    report = _load(model, weights, across_distillation, averaged)
    if report.new_heads or report.note:
        category = NewHeadsWarning if report.new_heads else UserWarning
        warnings.warn(str(report), category, stacklevel=3)  # at the caller of create_model
    return report


def _load(model, weights, across_distillation, averaged):
    if str(weights) == released.IMAGENET:
        return _load_released(model, across_distillation)
    path = check_weights_file(weights)
    if path.suffix == ".h5":
        load_h5(model, path)
        return Report(str(path), model.name, len(model.weights), len(model.weights))
    is_keras = path.suffix == ".keras"
    checkpoint = read_keras(path) if is_keras else read_checkpoint(model, path, averaged)
    return carry_over(checkpoint, model, across_distillation)


def check_weights_file(weights):
    """The path of a weights file; an error if it is not there, or of no format that is known."""
    return _existing(weights, (".keras", ".h5", *PYTORCH_SUFFIXES))


def _existing(weights, suffixes):
    path = pathlib.Path(weights)
    if path.suffix not in suffixes:
        raise ValueError(
            f"Unknown weights {str(path)!r}; give 'imagenet', or the path of a file that ends in "
            f"{', '.join(suffixes)}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file {path}.")
    return path


def _load_released(model, across_distillation):
    target = checkpoint_of(model, model.name)
    # A model may have a name of its own.
    name = model.name if model.name in released.RELEASES else describe(target.shapes).name
    if name not in released.RELEASES:
        released.release_of(model.name)  # which raises
    row = variant_of(name)
    settings = {field: getattr(row, field) for field in target.settings}
    _check_settings(Checkpoint(released.release_of(name).repository, {}, settings=settings), target)
    checkpoint = released.from_cache(name)
    if checkpoint is not None:
        return carry_over(checkpoint, model, across_distillation)
    file, provenance = released.fetch(name)
    checkpoint = read_checkpoint(model, file)
    checkpoint = dataclasses.replace(checkpoint, source=provenance["source"])
    # Only a whole checkpoint of the model itself is kept under its name.
    if "head/bias" not in checkpoint.values:
        raise Misfit(f"{file} is not the release of {name}: it has no classifier.")
    if looks_like := hint(checkpoint.shapes, name):
        raise Misfit(f"{file} is not the release of {name}.{looks_like}")
    report = carry_over(checkpoint, model, across_distillation)  # what does not fit is not kept
    released.write_converted(released.converted_file(name), checkpoint, provenance)
    return report


def carry_over(checkpoint, model, across_distillation=False):
    """Adapts a checkpoint to a model and assigns it, all or nothing; see `load_weights`."""
    target = checkpoint_of(model, model.name)
    with hinting(checkpoint.shapes, model.name):
        values, changes = adapted(checkpoint, target, across_distillation)
        # Heads stay as they were initialised where the checkpoint's were left out.
        lacking = {path for path in target.shapes if is_head(path) and path not in values}
        new = lacking if main_head(checkpoint.values) else set()
        _check_fit(checkpoint, values, target, new)
    for variable in model.weights:
        if variable.path in values:
            variable.assign(values[variable.path])
    return Report(
        checkpoint.source,
        model.name,
        tensors=len(values),
        variables=len(model.weights),
        new_heads=bool(new),
        note=checkpoint.note,
        **changes,
    )


def _check_fit(checkpoint, values, target, new):
    shapes = {path: shape for path, shape in target.shapes.items() if path not in new}
    if set(values) == set(shapes) and all(values[path].shape == shapes[path] for path in shapes):
        return
    if not hint(checkpoint.shapes, target.source):
        _check_settings(checkpoint, target)
    wanted, found = ({checkpoint.name(path) for path in paths} for paths in (shapes, values))
    check_names(checkpoint.source, target.source, wanted, found)
    for path, shape in shapes.items():
        if values[path].shape != shape:
            raise Misfit(
                f"{checkpoint.source}: tensor {checkpoint.name(path)} of shape "
                f"{values[path].shape} (in Keras' layout) does not fit {target.source}, which "
                f"needs {shape}."
            )


def _check_settings(checkpoint, target):
    """Raises Misfit, with the remedy, if the checkpoint's model has other sizes."""
    theirs = {
        name: value
        for name, value in checkpoint.settings.items()
        if target.settings.get(name, value) != value
    }
    if set(theirs) <= {"stride"}:  # which positions are resampled for
        return
    described = ", ".join(f"{name}={value}" for name, value in theirs.items())
    flags = " ".join(
        f"--config.model.{name}={shlex.quote(str(value))}" for name, value in theirs.items()
    )
    raise Misfit(
        f"{checkpoint.source} has {described}, unlike this {target.source}; create the model with "
        f"them (train.py: {flags})."
    )


def convert(
    checkpoint,
    output=None,
    *,
    name=None,
    image_size=None,
    across_distillation=False,
    averaged=True,
    overwrite=False,
):
    """Writes a checkpoint as a `.keras` file; returns its path and a `Report`.

    Args:
        checkpoint: A `.safetensors`, `.pth` or `.keras` file, or "imagenet" for released weights.
        output: The file to write; by default the model's name with `.keras`.
        name: A model of `create_model`; by default what the checkpoint looks like.
        image_size: Height and width of the images; by default those that the checkpoint is for.
        across_distillation, averaged: As for `load_weights`.
    """
    output = None if output is None else _checked_output(output, overwrite)
    if name is not None:
        _check_not_detector(name)
    description = _described(checkpoint, name)
    name = name or description.name
    if name is None:
        raise ValueError(
            f"{checkpoint} has the sizes of no model of `pit-keras models`; create the model with "
            "its own sizes, pit_keras.create_model(NAME, depths=..., weights=PATH), and save it."
        )
    output = output or _checked_output(f"{name}.keras", overwrite)
    size = image_size or _image_size(name, description.grid)
    model = build_model(
        name, classes=description.classes or 1000, input_shape=(*size, description.channels or 3)
    )
    report = _load(model, checkpoint, across_distillation, averaged)
    _save(model, output)
    return output, report


def _checked_output(output, overwrite):
    output = pathlib.Path(output)
    if output.suffix != ".keras":
        raise ValueError(f"The output {output} must end in .keras.")
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} is there already; --overwrite replaces it.")
    return output


def _check_not_detector(name):
    if isinstance(variant_of(name), Detr):
        raise ValueError(
            f"{name} is a detector, whose checkpoints are not converted but loaded: "
            "pit_keras.load_pytorch_weights(model, path)."
        )


def _described(checkpoint, name):
    if str(checkpoint) == released.IMAGENET:
        if name is None:
            raise ValueError("imagenet stands for the released weights of a model: add --model.")
        released.release_of(name)
        return Description(name, classes=1000, channels=3, grid=None)
    path = _existing(checkpoint, (".keras", *PYTORCH_SUFFIXES))
    is_keras = path.suffix == ".keras"
    return describe(read_keras(path).shapes if is_keras else shapes_of(read_state_dict(path)[0]))


def _image_size(name, grid):
    """The smallest image that gives the grid, which is the usual one: 224, 384."""
    row = variant_of(name)
    if grid is None or not hasattr(row, "patch_size"):
        return 224, 224
    return tuple((side - 1) * row.stride + row.patch_size for side in grid)


def _save(model, output):
    """Saves through a temporary file, so that an earlier one survives a failure."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        beside = {"dir": output.parent, "prefix": ".convert-"}
        with undone_at_the_end(), tempfile.TemporaryDirectory(**beside) as folder:
            temporary = pathlib.Path(folder) / output.name
            model.save(temporary)
            os.replace(temporary, output)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{output} cannot be written ({reason}).") from error
