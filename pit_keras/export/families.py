"""How the forms of `formats` are written, run and timed: one row for each family.

Classifiers have `FAMILIES`, detectors `DETECTOR_FAMILIES`. All compute in float32, whatever the
model was trained with.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import shutil
import tempfile
import weakref
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pit_keras.export import onnx_file, saved_model, tflite
from pit_keras.export.agreement import Sample, compare, compare_detections
from pit_keras.export.formats import DETECTOR_FORMATS, FORMATS, LEAST_CALIBRATION_IMAGES
from pit_keras.models.inference import with_dtype_policy
from pit_keras.runs.trained_detector import TrainedDetector
from pit_keras.runs.trained_model import TrainedModel

_PACKAGES = {
    "tflite": ("export", ("ai_edge_litert", "ai_edge_quantizer")),
    "onnx": ("onnx", ("onnx", "onnxruntime", "onnxscript", "tf2onnx")),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """What to write: a model in float32; `calibration` is for int8, `batch_size` for TFLite."""

    trained: TrainedModel | TrainedDetector
    calibration: Sample | None = None
    batch_size: int = 1
    license: str | None = None

    @functools.cached_property
    def saved_for_tflite(self):
        """A folder, which goes with the job: TFLite files of all kinds come from this trace."""
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder)
        tflite.save_for_tflite(self.trained, folder, self.batch_size)
        return folder


class Family(NamedTuple):
    """How a family of formats is written, run and timed.

    `expected` gives the answers of the Keras model, `answers` those of the file or folder: logits
    (N, classes), or what `compare_detections` takes.
    """

    write: Callable  # (job, kind, path)
    expected: Callable  # (trained, sample) -> answers
    answers: Callable  # (path, sample) -> answers
    call: Callable  # (path, crop, threads) -> a function that runs the model once
    compare: Callable = compare  # (expected, answers) -> agreement
    threads: tuple = (1, 2)


def _write_tflite(job, kind, path):
    calibration = job.calibration.crops if kind == "int8" else None
    arguments = path, kind, job.batch_size, calibration, job.license
    tflite.export_tflite(job.trained, *arguments, saved=job.saved_for_tflite)


def _logits_of_crops(trained, sample):
    return trained.logits_of_crops(sample.crops)


FAMILIES = {
    "saved_model": Family(
        write=lambda job, kind, path: saved_model.export_saved_model(job.trained, path, kind),
        # Photographs, since its own resizing is compared too.
        expected=lambda trained, sample: trained.logits(sample.photographs),
        answers=lambda path, sample: saved_model.run_saved_model(path, sample.photographs),
        call=lambda path, crop, _: functools.partial(saved_model.load_saved_model(path), crop),
        threads=("all",),
    ),
    "tflite": Family(
        write=_write_tflite,
        expected=_logits_of_crops,
        answers=lambda path, sample: tflite.load_tflite_model(path).logits_of_crops(sample.crops),
        call=lambda path, _, threads: tflite.call_of_tflite(path, threads),
    ),
    "onnx": Family(
        write=lambda job, kind, path: onnx_file.export_onnx(job.trained, path),
        expected=_logits_of_crops,
        answers=lambda path, sample: onnx_file.run_onnx(path, sample.crops),
        call=lambda path, crop, threads: functools.partial(
            onnx_file.load_onnx(path, threads), crop
        ),
    ),
}


def _detector_answers(trained, sample, fixed_size=None):
    answers = [trained.answers(image, fixed_size) for image in sample.photographs]
    return _together(answers, sample)


def _detector_saved_model_answers(path, sample):
    answers = []
    for found in map(saved_model.load_saved_model(path), sample.photographs):
        order = np.argsort(found["queries"][0])
        answers.append({name: found[name][0][order] for name in ("boxes", "scores", "labels")})
    return _together(answers, sample)


def _detector_tflite_answers(path, sample):
    detector = tflite.load_tflite_model(path)
    return _together([detector.answers(image) for image in sample.photographs], sample)


def _together(answers, sample):
    """Arrays (N, Q, ...) of the answers for N images; boxes within them, as shares of the sides."""
    arrays = {name: np.stack([each[name] for each in answers]) for name in answers[0]}
    sizes = [image.shape[1::-1] * 2 for image in sample.photographs]  # width, height, twice
    return {**arrays, "boxes": np.clip(arrays["boxes"] / np.array(sizes)[:, np.newaxis], 0, 1)}


DETECTOR_FAMILIES = {
    "saved_model": FAMILIES["saved_model"]._replace(
        write=lambda job, kind, path: saved_model.export_detector_saved_model(job.trained, path),
        expected=_detector_answers,
        answers=_detector_saved_model_answers,
        compare=compare_detections,
    ),
    "tflite": FAMILIES["tflite"]._replace(
        write=lambda job, kind, path: tflite.export_detector_tflite(
            job.trained, path, kind, job.batch_size, saved=job.saved_for_tflite
        ),
        # Images are fitted into the one size of the file.
        expected=lambda trained, sample: _detector_answers(
            trained, sample, tflite.tflite_size(trained)
        ),
        answers=_detector_tflite_answers,
        compare=compare_detections,
    ),
}


def families(trained):
    return DETECTOR_FAMILIES if isinstance(trained, TrainedDetector) else FAMILIES


def in_float32(trained):
    """The same model, computing in float32: an exported file is to run on any device."""
    return dataclasses.replace(trained, model=with_dtype_policy(trained.model, "float32"))


@contextlib.contextmanager
def full_float32():
    """Within it, GPUs multiply in float32 and not in TensorFloat-32, which keeps 10 bits of 23."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def why_not(name, job):
    """Why a format cannot be written, or None."""
    format_ = FORMATS[name]
    if isinstance(job.trained, TrainedDetector) and name not in DETECTOR_FORMATS:
        return f"detectors are written as {', '.join(DETECTOR_FORMATS)} only"
    extra, packages = _PACKAGES.get(format_.family, ("", ()))
    if any(importlib.util.find_spec(package) is None for package in packages):
        return f"its packages are not installed: pip install 'pit_keras[{extra}]'"
    images = 0 if job.calibration is None else len(job.calibration)
    if format_.kind == "int8" and images < LEAST_CALIBRATION_IMAGES:
        return (
            f"it needs {LEAST_CALIBRATION_IMAGES} or more images to be calibrated on and has "
            f"{images}; give --calibration_images, or --dataset and --data_dir"
        )
    return None
