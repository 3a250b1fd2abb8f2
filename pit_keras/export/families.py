"""How the forms of `formats` are written, run and timed: one row for each family."""

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

from pit_keras.evaluation.trained_model import TrainedModel
from pit_keras.export.formats import LEAST_CALIBRATION_IMAGES
from pit_keras.export.litert import run_tflite, tflite_latency
from pit_keras.export.onnx_file import export_onnx, onnx_latency, run_onnx
from pit_keras.export.sample import Sample
from pit_keras.export.saved_model import export_saved_model
from pit_keras.export.saved_model_running import run_saved_model, saved_model_latency
from pit_keras.export.tflite import export_tflite

THREADS = (1, 2)


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be written, beside the format.

    Attributes:
        trained: The model, in float32.
        calibration: A `Sample` for int8, or None if there is none.
        batch_size: Images of one call of a TFLite file; the others take any number.
        license: Of the weights, as a text; None if it is not said.
    """

    trained: TrainedModel
    calibration: Sample | None = None
    batch_size: int = 1
    license: str | None = None


class Family(NamedTuple):
    """How a family of formats is written, run and timed.

    Attributes:
        write: `(job, kind, path)`, writes the file or folder.
        expected: `(trained, sample)`, the Keras model's logits of the images that it is compared
            on, (N, classes).
        logits: `(path, sample)`, those of what was written.
        latency: `(path, crop)`, median milliseconds of one call, by the number of threads.
    """

    write: Callable
    expected: Callable
    logits: Callable
    latency: Callable


def _write_saved_model(job, kind, path):
    export_saved_model(job.trained, path.parent, kind)


def _write_tflite(job, kind, path):
    calibration = job.calibration.crops if kind == "int8" else None
    export_tflite(job.trained, path, kind, job.batch_size, calibration, license=job.license)


def _write_onnx(job, kind, path):
    export_onnx(job.trained, path)


def _latency_by_threads(latency):
    def measure(path, crop):
        return {str(threads): latency(path, crop, threads) for threads in THREADS}

    return measure


def _logits_of_crops(trained, sample):
    return trained.logits_of_crops(sample.crops)


FAMILIES = {
    "saved_model": Family(
        write=_write_saved_model,
        # Its own resizing is compared too, so it gets the images as they came.
        expected=lambda trained, sample: trained.logits(sample.photographs),
        logits=lambda path, sample: run_saved_model(path, sample.photographs),
        latency=lambda path, crop: {"all": saved_model_latency(path, crop)},
    ),
    "tflite": Family(
        write=_write_tflite,
        expected=_logits_of_crops,
        logits=lambda path, sample: run_tflite(path, sample.crops),
        latency=_latency_by_threads(tflite_latency),
    ),
    "onnx": Family(
        write=_write_onnx,
        expected=_logits_of_crops,
        logits=lambda path, sample: run_onnx(path, sample.crops),
        latency=_latency_by_threads(onnx_latency),
    ),
}


def why_not(format_, job):
    """Why a format cannot be written, as a sentence; None if it can."""
    if format_.family == "onnx" and _missing("onnx", "tf2onnx", "onnxruntime"):
        return "its packages are not installed: pip install 'pit_keras[onnx]'"
    if format_.family == "tflite" and _missing("ai_edge_litert"):
        return "its packages are not installed: pip install 'pit_keras[export]'"
    images = 0 if job.calibration is None else len(job.calibration)
    if format_.kind == "int8" and images < LEAST_CALIBRATION_IMAGES:
        return (
            f"it needs {LEAST_CALIBRATION_IMAGES} or more images to be calibrated on, and there "
            f"are {images}: give more with --calibration_images, or say where the data is with "
            "--dataset and --data_dir"
        )
    return None


def _missing(*packages):
    return any(importlib.util.find_spec(package) is None for package in packages)
