"""How the forms of `formats` are written, run and timed: one row for each family.

What a form must give is another for classifiers, `FAMILIES`, and for detectors,
`DETECTOR_FAMILIES`. All compute in float32, whatever the model was trained with.
"""

import contextlib
import dataclasses
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pit_keras.data.detection_preprocessing import fit
from pit_keras.export.agreement import Sample, compare, compare_detections
from pit_keras.export.formats import DETECTOR_FORMATS, FORMATS, LEAST_CALIBRATION_IMAGES
from pit_keras.export.onnx_file import export_onnx, onnx_latency, run_onnx
from pit_keras.export.saved_model import (
    export_detector_saved_model,
    export_saved_model,
    run_saved_model,
    saved_model_answers,
    saved_model_latency,
)
from pit_keras.export.tflite import (
    export_detector_tflite,
    export_tflite,
    load_tflite_detector,
    run_tflite,
    tflite_latency,
    tflite_size,
)
from pit_keras.models.dtype_policy import with_dtype_policy
from pit_keras.runs.trained_detector import TrainedDetector
from pit_keras.runs.trained_model import TrainedModel

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

    trained: TrainedModel | TrainedDetector
    calibration: Sample | None = None
    batch_size: int = 1
    license: str | None = None


class Family(NamedTuple):
    """How a family of formats is written, run and timed.

    Attributes:
        write: `(job, kind, path)`, writes the file or folder.
        expected: `(trained, sample)`, what the Keras model says of the images that it is compared
            on: logits (N, classes), or of a detector as `compare_detections` takes it.
        answers: `(path, sample)`, the same of what was written.
        latency: `(path, crop)`, median milliseconds of one call, by the number of threads.
        compare: `(expected, answers)`, how they differ.
    """

    write: Callable
    expected: Callable
    answers: Callable
    latency: Callable
    compare: Callable = compare


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
        answers=lambda path, sample: run_saved_model(path, sample.photographs),
        latency=lambda path, crop: {"all": saved_model_latency(path, crop)},
    ),
    "tflite": Family(
        write=_write_tflite,
        expected=_logits_of_crops,
        answers=lambda path, sample: run_tflite(path, sample.crops),
        latency=_latency_by_threads(tflite_latency),
    ),
    "onnx": Family(
        write=_write_onnx,
        expected=_logits_of_crops,
        answers=lambda path, sample: run_onnx(path, sample.crops),
        latency=_latency_by_threads(onnx_latency),
    ),
}


def _write_detector_saved_model(job, kind, path):
    export_detector_saved_model(job.trained, path.parent)


def _write_detector_tflite(job, kind, path):
    export_detector_tflite(job.trained, path, kind, job.batch_size)


def _detector_answers(trained, sample, fixed_size=None):
    answers = []
    for image in sample.photographs:
        height, width = image.shape[:2]
        found = trained.answers(image, fixed_size)
        answers.append({**found, "boxes": found["boxes"] / [width, height, width, height]})
    return _stacked(answers)


def _detector_saved_model_answers(path, sample):
    answers = []
    of_images = saved_model_answers(path, sample.photographs)
    for image, found in zip(sample.photographs, of_images, strict=True):
        height, width = image.shape[:2]
        found = {name: values[0] for name, values in found.items()}
        boxes = found["boxes"] / [width, height, width, height]
        order = np.argsort(found["queries"])
        found = {"boxes": boxes, "scores": found["scores"], "labels": found["labels"]}
        answers.append({name: values[order] for name, values in found.items()})
    return _stacked(answers)


def _detector_tflite_answers(path, sample):
    return _stacked(map(load_tflite_detector(path).answers, sample.photographs))


def _stacked(answers):
    """Of all images (N, Q, ...), what there is of each; boxes within the image."""
    answers = list(answers)
    together = {name: np.stack([each[name] for each in answers]) for name in answers[0]}
    return {**together, "boxes": np.clip(together["boxes"], 0, 1)}


def _detector_tflite_latency(path, crop, threads):
    size = load_tflite_detector(path).image_size
    pixels, content = fit(crop[np.newaxis], size, size)
    return tflite_latency(path, pixels[0], threads, content=content)


DETECTOR_FAMILIES = {
    "saved_model": Family(
        write=_write_detector_saved_model,
        expected=_detector_answers,
        answers=_detector_saved_model_answers,
        latency=FAMILIES["saved_model"].latency,
        compare=compare_detections,
    ),
    "tflite": Family(
        write=_write_detector_tflite,
        # Of images that fit into the one size of the file.
        expected=lambda trained, sample: _detector_answers(trained, sample, tflite_size(trained)),
        answers=_detector_tflite_answers,
        latency=_latency_by_threads(_detector_tflite_latency),
        compare=compare_detections,
    ),
}


def families(trained):
    """The families of a `TrainedModel` or a `TrainedDetector`, by name."""
    return DETECTOR_FAMILIES if isinstance(trained, TrainedDetector) else FAMILIES


def in_float32(trained):
    """The same `TrainedModel`, computing in float32.

    Casts to 16 bits are right for the device that a model was trained on and wrong for a file that
    is to run anywhere.
    """
    return dataclasses.replace(trained, model=with_dtype_policy(trained.model, "float32"))


@contextlib.contextmanager
def full_float32():
    """Within it, GPUs multiply float32 matrices in float32 and not in TensorFloat-32.

    That is TensorFlow's default on recent GPUs and keeps 10 bits of the 23: a model would differ
    from its own export on a processor by far more than the order of summation explains.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def why_not(format_, job):
    """Why a format cannot be written, as a sentence; None if it can."""
    if isinstance(job.trained, TrainedDetector) and format_ not in (
        FORMATS[name] for name in DETECTOR_FORMATS
    ):
        return f"detectors are written as {', '.join(DETECTOR_FORMATS)} only"
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
