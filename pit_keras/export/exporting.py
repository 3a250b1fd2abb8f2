"""Exporting: write, compare with the Keras model on real images, and only then move in place."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.export.agreement import (
    TOLERANCE,
    Agreement,
    compare,
    real_images,
    run_saved_model,
    run_tflite,
)
from pit_keras.export.precision import full_float32, in_float32
from pit_keras.export.saved_model import export_saved_model
from pit_keras.export.tflite import export_tflite


class ExportError(ValueError):
    """An export that does not compute what the Keras model does."""


class Exported(NamedTuple):
    """One export that has been written.

    Attributes:
        format: Its name in `FORMATS`.
        path: The file, or the folder.
        bytes: Its size.
        agreement: How its logits differ from the Keras model's.
    """

    format: str
    path: pathlib.Path
    bytes: int
    agreement: Agreement


@dataclasses.dataclass(frozen=True)
class Format:
    """How one format is written and run.

    Attributes:
        target: Name of the file or folder in the output folder.
        write: Writes a `TrainedModel` to a path.
        logits: Runs what lies at a path on uint8 images (H, W, 3) of any sizes, given the model's
            `DataConfig`; returns (N, classes).
    """

    target: str
    write: Callable
    logits: Callable


def _saved_model_logits(path, images, data):
    return run_saved_model(path, images)


def _tflite_logits(path, images, data):
    # The crop holds whole levels, so that nothing is lost in a byte.
    crops = [resize_and_crop(image, data.image_size, data.eval_crop) for image in images]
    return run_tflite(path, [tf.cast(crop, tf.uint8).numpy() for crop in crops])


FORMATS = {
    "saved_model": Format("saved_model", export_saved_model, _saved_model_logits),
    "tflite": Format("model.tflite", export_tflite, _tflite_logits),
}


def export(trained, output_dir, formats=tuple(FORMATS), images=None, overwrite=False):
    """Writes a trained model in other formats, after comparing each with the Keras model.

    All formats are written to a temporary folder and compared there. If all agree they are moved in
    place; otherwise `output_dir` stays as it was.

    Args:
        trained: A `TrainedModel`. Whatever its precision, it is exported in float32.
        output_dir: Folder for `saved_model/` and `model.tflite`; made if it is missing.
        formats: Names out of `FORMATS`.
        images: uint8 images (H, W, 3) of any sizes, at least one, to compare with; None for
            `real_images()`.
        overwrite: Whether to replace what is there.

    Returns:
        An `Exported` for each format.

    Raises:
        ExportError: If an export's logits differ from the Keras model's by more than `TOLERANCE`.
        ValueError: If a format is unknown, the images are not fit, or Keras does not run on
            TensorFlow.
        FileExistsError: If a target exists and is not to be overwritten.
        OSError: If `output_dir` is a file or cannot be written to.
    """
    output_dir = pathlib.Path(output_dir)
    formats = tuple(dict.fromkeys(formats))
    images = real_images() if images is None else images
    _check_backend()
    _check_formats(formats)
    _check_images(images)
    check_targets(output_dir, formats, overwrite)

    trained = in_float32(trained)
    targets = {name: output_dir / FORMATS[name].target for name in formats}
    is_new = not output_dir.exists()
    try:
        with _temporary_folder(output_dir) as folder:
            agreements = _write_and_compare(trained, pathlib.Path(folder), formats, images)
            for target in targets.values():
                _move(pathlib.Path(folder, target.name), target)
    finally:
        if is_new and output_dir.exists() and not any(output_dir.iterdir()):
            output_dir.rmdir()
    return [
        Exported(name, target, _size(target), agreements[name]) for name, target in targets.items()
    ]


def _check_backend():
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            f"Exporting needs Keras' TensorFlow backend, not {backend}; set "
            "KERAS_BACKEND=tensorflow."
        )


def _check_formats(formats):
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"Unknown format {name!r}; known are {', '.join(FORMATS)}.")


def _check_images(images):
    if not len(images):
        raise ValueError("There are no images to compare the exported model with.")
    for image in images:
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
            raise ValueError(
                f"Images must be uint8 (H, W, 3); got {array.dtype} of shape {array.shape}."
            )


def check_targets(output_dir, formats=tuple(FORMATS), overwrite=False):
    """Checks, before long work, that a model can be exported to a folder; leaves no trace.

    Raises:
        OSError: If the folder is a file or cannot be written to, or holds a target that is not to
            be overwritten.
    """
    output_dir = pathlib.Path(output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise NotADirectoryError(f"{output_dir} is a file; the exported models need a folder.")
    for target in (output_dir / FORMATS[name].target for name in formats):
        if os.path.lexists(target) and not overwrite:
            raise FileExistsError(
                f"{target} exists already; replace it with --overwrite (overwrite=True), or choose "
                "another folder."
            )
    existing = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    with _temporary_folder(existing):
        pass


@contextlib.contextmanager
def _temporary_folder(output_dir):
    """A folder in `output_dir`, which is made if it is missing."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=output_dir, prefix=".export-")
    except OSError as error:
        raise OSError(f"{output_dir} cannot be written to: {error.strerror}.") from error
    with folder as path:
        yield path


def _write_and_compare(trained, folder, formats, images):
    """Writes the formats into a folder; returns each one's `Agreement` or raises `ExportError`."""
    agreements = {}
    with full_float32():
        expected = trained.logits(images)
        for name in formats:
            path = folder / FORMATS[name].target
            FORMATS[name].write(trained, path)
            agreements[name] = compare(expected, FORMATS[name].logits(path, images, trained.data))
            _check_agreement(name, trained.model, agreements[name])
    return agreements


def _check_agreement(name, model, agreement):
    if not agreement.within(TOLERANCE):
        raise ExportError(
            f"The {name} export of {model.name} does not agree with the Keras model, and nothing "
            f"was written: {agreement}, while {TOLERANCE:.0e} of the largest logit is allowed."
        )


def _move(source, target):
    """Moves a file or folder in place; what was there is gone, or stays if the move fails."""
    if not os.path.lexists(target) or (source.is_file() and not target.is_dir()):
        os.replace(source, target)
        return
    # Only a file can be replaced by a file in one step. Otherwise the old one moves to where the
    # new one comes from, a temporary folder.
    aside = source.with_name(f"{source.name}.replaced")
    os.replace(target, aside)
    try:
        os.replace(source, target)
    except OSError:
        os.replace(aside, target)
        raise


def _size(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
