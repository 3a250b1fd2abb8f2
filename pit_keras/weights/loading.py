"""One door for weights of every format, size and origin."""

import dataclasses
import pathlib
import warnings

from pit_keras.weights import cache, released
from pit_keras.weights.adaptation import HEADS, Report, Target, adapted, main_head
from pit_keras.weights.checkpoint import Misfit, listed
from pit_keras.weights.keras_files import load_h5, read_keras
from pit_keras.weights.pytorch import read_checkpoint
from pit_keras.weights.variants import describe, hint

KERAS_SUFFIXES = (".keras", ".h5")
PYTORCH_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class NewHeadsWarning(UserWarning):
    """Weights were loaded without their heads, which have another number of classes."""


def load_weights(model, weights, *, across_distillation=False):
    """Loads weights into a model of `create_model`, all or nothing.

    A checkpoint of another image size, patch stride, number of classes or of channels is adapted:
    its position embedding is resampled, its heads are left out with a warning, its RGB kernel is
    summed or repeated. A `.weights.h5` file tells too little for that and must fit as it is.

    Args:
        model: A model of `create_model`.
        weights: "imagenet" for the released weights of the model of this name, or the path of a
            `.keras`, `.weights.h5`, `.safetensors` or `.pth` file.
        across_distillation: Whether a distilled checkpoint may go into a plain model, which drops
            the distillation token and its head, and a plain one into a distilled model, which
            copies them from the class token's.

    Returns:
        A `Report` of what was carried over.

    Raises:
        FileNotFoundError: If the file is not there, or released weights are neither on this machine
            nor within reach.
        ValueError: If the format is unknown, the file damaged or altered, or the weights do not fit
            the model. The model is then unchanged.
        OSError: If there is no room for released weights.
    """
    report = _load(model, weights, across_distillation)
    if report.new_heads:
        warnings.warn(str(report), NewHeadsWarning, stacklevel=3)  # at the caller of create_model
    return report


def _load(model, weights, across_distillation):
    if str(weights) == released.IMAGENET:
        return _load_released(model, across_distillation)
    path = pathlib.Path(weights)
    if path.suffix not in KERAS_SUFFIXES + PYTORCH_SUFFIXES:
        raise ValueError(
            f"Unknown weights {str(weights)!r}; give None, 'imagenet', or the path of a file that "
            "ends in .keras, .weights.h5, .safetensors or .pth."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file {path}.")
    if path.suffix == ".h5":
        load_h5(model, path)
        return Report(str(path), model.name, len(model.weights), len(model.weights))
    checkpoint = read_keras(path) if path.suffix == ".keras" else read_checkpoint(model, path)
    return carry_over(checkpoint, model, across_distillation)


def _load_released(model, across_distillation):
    name = model.name
    converted = released.converted_file(name)
    checkpoint = released.read_converted(name)
    if checkpoint is not None:
        return carry_over(checkpoint, model, across_distillation)
    file, provenance = released.fetch(name)
    checkpoint = read_checkpoint(model, file)
    checkpoint = dataclasses.replace(checkpoint, source=provenance["source"])
    _check_release(name, file, checkpoint)
    report = carry_over(checkpoint, model, across_distillation)  # what does not fit is not kept
    cache.write(converted, checkpoint, provenance)
    return report


def _check_release(name, file, checkpoint):
    """Only a whole checkpoint of the model itself is kept under its name."""
    if "head/bias" not in checkpoint.values:
        raise Misfit(f"{file} is not the release of {name}: it has no classifier.")
    looks_like = describe({path: value.shape for path, value in checkpoint.values.items()}).name
    if looks_like not in (None, name):
        raise Misfit(
            f"{file} is not the release of {name}: it looks like a checkpoint of {looks_like}."
        )


def carry_over(checkpoint, model, across_distillation=False):
    """Adapts a checkpoint to a model and assigns it, all or nothing; see `load_weights`."""
    target = Target.of(model)
    try:
        values, changes = adapted(checkpoint, target, across_distillation)
        new = _new_heads(checkpoint, values, target)
        _check_fit(checkpoint, values, target, new)
    except Misfit as error:
        shapes = {path: value.shape for path, value in checkpoint.values.items()}
        raise Misfit(f"{error}{hint(shapes, model.name)}") from error
    for variable in model.weights:
        if variable.path in values:
            variable.assign(values[variable.path])
    return Report(
        checkpoint.source,
        model.name,
        tensors=len(values),
        variables=len(model.weights),
        new_heads=bool(new),
        **changes,
    )


def _new_heads(checkpoint, values, target):
    """Paths of heads that stay as they were initialised, since the checkpoint's were left out."""
    return {
        path
        for path in target.shapes
        if path.split("/")[0] in HEADS and path not in values and main_head(checkpoint.values)
    }


def _check_fit(checkpoint, values, target, new):
    missing = [checkpoint.name(path) for path in set(target.shapes) - set(values) - new]
    if missing:
        raise Misfit(
            f"{checkpoint.source} does not fit {target.name}: it lacks {len(missing)} of the "
            f"model's {len(target.shapes)} tensors: {listed(missing)}."
        )
    left_over = [checkpoint.name(path) for path in set(values) - set(target.shapes)]
    if left_over:
        raise Misfit(
            f"{checkpoint.source} does not fit {target.name}: {len(left_over)} of its tensors "
            f"would be left over: {listed(left_over)}."
        )
    for path, shape in target.shapes.items():
        if path in values and values[path].shape != shape:
            raise Misfit(
                f"{checkpoint.source}: tensor {checkpoint.name(path)}, of shape "
                f"{checkpoint.values[path].shape} in Keras' layout, does not fit {path} of shape "
                f"{shape}."
            )
