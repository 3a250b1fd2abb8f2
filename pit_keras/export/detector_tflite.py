"""A detector as a TFLite (LiteRT) file, for phones and small computers."""

import dataclasses
import functools
import json
import pathlib
import tempfile
import zipfile

import numpy as np
import tensorflow as tf

from pit_keras.data.detection_preprocessing import fit, masked_inputs
from pit_keras.export.class_names import CLASSES_FILE, class_names_text
from pit_keras.export.litert import signature
from pit_keras.export.preprocessing_text import (
    DETECTION,
    PREPROCESSING_FILE,
    detection_preprocessing_text,
)
from pit_keras.export.saved_model import save_function
from pit_keras.export.tflite import write_with_texts
from pit_keras.models.detr_outputs import detected
from pit_keras.runs.found_objects import THRESHOLD, found_objects

DETECTOR_KINDS = ("float32", "float16", "dynamic")


def tflite_size(trained):
    """Height and width of the images that the file of a `TrainedDetector` takes."""
    return trained.fixed_size or tuple(trained.data.image_size)


def export_detector_tflite(trained, path, kind="float32", batch=1):
    """Writes a TFLite file of a detector, for images of one size.

    Its signature `serving_default` takes `images`, uint8 (batch, H, W, 3): each scaled until it
    fits, aspect kept, at the left and top, and zeros beside or below it; and `content`, int32
    (batch, 2), the height and width of the image therein. With Q queries it gives `boxes`, float32
    (batch, Q, 4), left, top, right, bottom as shares of the sides of the image without its padding,
    beyond which they may reach; `scores`, float32 (batch, Q); and `labels`, int32 (batch, Q),
    numbers of the names in the associated file `classes.txt`. They are in no order, and those of a
    low score mean nothing.

    Normalisation and padding's mask are inside. It consists of TFLite's built-in operations alone,
    and the same model gives the same bytes. It has no TFLite metadata.

    Args:
        trained: A `TrainedDetector` on Keras' TensorFlow backend, computing in float32.
        path: The file to write.
        kind: One of `DETECTOR_KINDS`, see `pit_keras.export.tflite.TFLITE_KINDS`.
        batch: Number of images that the file takes at once.

    Raises:
        ValueError: If the kind is another, or a class name holds a line break.
    """
    if kind not in DETECTOR_KINDS:
        raise ValueError(
            f"Unknown kind of TFLite file of a detector {kind!r}; known are "
            f"{', '.join(DETECTOR_KINDS)}."
        )
    size, names = tflite_size(trained), class_names_text(trained.class_names)

    def detect(images, content):
        outputs = trained.outputs(masked_inputs(images, content, trained.data))
        return detected(outputs, tf.ones((batch, 2)))  # shares

    inputs = [
        tf.TensorSpec((batch, *size, 3), tf.uint8, name="images"),
        tf.TensorSpec((batch, 2), tf.int32, name="content"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        save_function(detect, inputs, trained.model, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if kind != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        contents = converter.convert()
    preprocessing = detection_preprocessing_text(trained.data, size)
    write_with_texts(pathlib.Path(path), contents, names, preprocessing)


@dataclasses.dataclass(frozen=True)
class TFLiteDetector:
    """Like a `TrainedDetector`, but run by LiteRT from a file that `export_detector_tflite` wrote.

    Attributes:
        path: The file.
        class_names: One for each class.
        image_size: Height and width that it takes.
    """

    path: pathlib.Path
    class_names: tuple[str, ...]
    image_size: tuple[int, int]

    @functools.cached_property
    def _detect(self):
        return signature(self.path)

    def answers(self, image):
        """What it says of a uint8 image (h, w, 3) of any size.

        Returns:
            `boxes` (Q, 4), shares of the image's sides; `scores` (Q,); and `labels` (Q,).
        """
        batch = self._detect.get_input_details()["images"]["shape"][0]
        pixels, content = fit(image[np.newaxis], self.image_size, self.image_size)
        answers = self._detect(
            images=np.repeat(pixels, batch, axis=0), content=np.tile(content, (batch, 1))
        )
        return {name: values[0] for name, values in answers.items()}

    def detections_of(self, images, threshold=THRESHOLD):
        """As of `TrainedDetector`."""
        found = []
        for image in images:
            height, width = image.shape[:2]
            answers = self.answers(image)
            answers["boxes"] = answers["boxes"] * [width, height, width, height]
            found.append(found_objects(answers, (height, width), self.class_names, threshold))
        return found


def load_tflite_detector(path, class_names=None):
    """Reads a file that `export_detector_tflite` wrote.

    Args:
        path: The file.
        class_names: Names in the order of the labels; None for the file's own.

    Raises:
        ValueError: If there are more or less names than classes.
        ImportError: If LiteRT is not installed.
    """
    with zipfile.ZipFile(path) as archive:
        own = archive.read(CLASSES_FILE).decode().splitlines()
        size = json.loads(archive.read(PREPROCESSING_FILE))["image_size"]
    names = tuple(own if class_names is None else class_names)
    if len(names) != len(own):
        raise ValueError(
            f"There are {len(names)} class names for the {len(own)} classes of {path}."
        )
    return TFLiteDetector(pathlib.Path(path), names, tuple(size))


def is_tflite_detector(path):
    """Whether a file was written by `export_detector_tflite`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(PREPROCESSING_FILE)).get("task") == DETECTION
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, AttributeError):
        return False
