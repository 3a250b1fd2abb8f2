"""TFLite (LiteRT): one file for phones and small computers.

First how classifiers and detectors are written, then how both are read and run.
"""

import dataclasses
import functools
import itertools
import json
import pathlib
import tempfile
import zipfile

import numpy as np
import tensorflow as tf

from pit_keras.data.detection_preprocessing import fit, masked_inputs
from pit_keras.data.preprocessing import normalise, resize_and_crop
from pit_keras.export.agreement import CALLS, median_milliseconds
from pit_keras.export.saved_model import SIGNATURE, save_function
from pit_keras.export.sidecars import (
    CLASSES_FILE,
    DETECTION,
    PREPROCESSING_FILE,
    class_names_text,
    detection_preprocessing_text,
    preprocessing_text,
)
from pit_keras.export.tflite_metadata import with_metadata
from pit_keras.export.tflite_quantization import check_calibration, int8_products
from pit_keras.models.attention import has_transformer_blocks
from pit_keras.models.detr_outputs import detected
from pit_keras.models.inference import logits_only
from pit_keras.runs.found_objects import THRESHOLD, found_objects

# What is in the file, by kind. The values are sentences for the file's description.
TFLITE_KINDS = {
    "float32": "in float32",
    "float16": "with weights in float16, computed in float32 where a device has nothing better",
    "dynamic": "with weights in int8 and activations quantised while it runs",
    "int8": "with matrix products in int8, calibrated on images",
}
DETECTOR_KINDS = ("float32", "float16", "dynamic")


def export_tflite(trained, path, kind="float32", batch=1, calibration=None, license=None):
    """Writes a TFLite file that takes images of the model's own size.

    Its signature `serving_default` maps `images`, uint8 (batch, H, W, 3), to `logits`, float32
    (batch, classes). The normalisation is inside; resizing and cropping, which devices do better
    themselves, are not. It consists of TFLite's built-in operations alone. The same model, and for
    `int8` the same images, give the same bytes.

    The class names are TFLite's "associated file" `classes.txt`: a zip archive behind the model,
    which interpreters ignore; `zipfile.ZipFile(path).read("classes.txt")` gives one name a line.
    TFLite's metadata point to them as the labels of the output. Beside them lies
    `preprocessing.json`, see `preprocessing_text`.

    Args:
        trained: A `TrainedModel` on Keras' TensorFlow backend, computing in float32.
        path: The file to write.
        kind: One of `TFLITE_KINDS`: `float32`; `float16`, half the size; `dynamic`, a quarter of
            it; `int8`, a quarter of it too, which needs `calibration`: see
            `int8_products`. Of a convolutional network all operations are in int8.
        batch: Number of images that the file takes at once.
        calibration: For `int8` alone, images such as the model will see: uint8 (N, H, W, 3) of the
            model's size, N at least 32. `data.preprocessing.resize_and_crop` makes them.
        license: Under which the model may be used, a name or a text, for the metadata.

    Raises:
        ValueError: If the kind is unknown, the batch is not a positive integer, the calibration
            images are not fit or not asked for, or a class name holds a line break.
        ImportError: If LiteRT is not installed, or for `int8` ai-edge-quantizer.
    """
    _check(trained, kind, batch, calibration)
    names = class_names_text(trained.class_names)
    model = _converted_classifier(trained, kind, batch, calibration)
    description = f"Image classifier of {len(trained.class_names)} classes {TFLITE_KINDS[kind]}."
    contents = with_metadata(model, trained.model.name, description, license)
    _write(path, contents, names, preprocessing_text(trained.data))


def _check(trained, kind, batch, calibration):
    if kind not in TFLITE_KINDS:
        raise ValueError(
            f"Unknown kind of TFLite file {kind!r}; known are {', '.join(TFLITE_KINDS)}."
        )
    if type(batch) is not int or batch < 1:
        raise ValueError(f"The batch of a TFLite file must be a positive integer, not {batch!r}.")
    if kind == "int8":
        check_calibration(calibration, trained.data.image_size)
    elif calibration is not None:
        raise ValueError(f"Calibration images are for the kind int8; {kind} has no use for them.")


def _converted_classifier(trained, kind, batch, calibration):
    data, model = trained.data, logits_only(trained.model)

    def classify(images):
        images = normalise(images, data.mean, data.std)
        return {"logits": model(images, training=False)}

    # A fixed batch lets the converter compute all shapes: half the operations remain.
    images = tf.TensorSpec((batch, *data.image_size, 3), tf.uint8, name="images")

    def samples():
        return ({"images": images} for images, _ in batches(calibration, batch))

    if kind == "int8" and has_transformer_blocks(trained.model):
        return int8_products(_converted(classify, [images], model, "float32"), samples())
    # The whole of a convolutional network holds in int8.
    return _converted(classify, [images], model, kind, samples)


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
        kind: One of `DETECTOR_KINDS`, see `TFLITE_KINDS`.
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
    contents = _converted(detect, inputs, trained.model, kind)
    _write(path, contents, names, detection_preprocessing_text(trained.data, size))


def _converted(function, inputs, model, kind, samples=None):
    """The bytes of a TFLite file of a function, see `save_function`; `samples` are for int8."""
    with tempfile.TemporaryDirectory() as folder:
        save_function(function, inputs, model, folder)
        # Not `from_concrete_functions`: it does not freeze the variables of a Keras 3 model, and
        # the result computes NaN.
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if kind != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        elif kind == "int8":
            converter.representative_dataset = samples
        return converter.convert()


def _write(path, contents, names, preprocessing):
    """Writes a TFLite file with `classes.txt` and `preprocessing.json` behind the model."""
    pathlib.Path(path).write_bytes(contents)
    with zipfile.ZipFile(path, "a") as archive:
        # A fixed date and no compression: the same model gives the same bytes, and readers that
        # map the file into memory need no decoder.
        archive.writestr(zipfile.ZipInfo(CLASSES_FILE), names)
        archive.writestr(zipfile.ZipInfo(PREPROCESSING_FILE), preprocessing)


@dataclasses.dataclass(frozen=True)
class TFLiteModel:
    """Like a `TrainedModel`, but run by LiteRT from a file that `export_tflite` wrote.

    Attributes:
        path: The file.
        class_names: One for each logit.
        image_size: Height and width that it takes.
        eval_crop: Centre crop's share of the short side.
    """

    path: pathlib.Path
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    eval_crop: float

    def logits(self, images):
        """Logits (N, classes) of one or more uint8 images (H, W, 3), each of any size."""
        crops = (resize_and_crop(image, self.image_size, self.eval_crop) for image in images)
        return run_tflite(self.path, (tf.cast(crop, tf.uint8).numpy() for crop in crops))


def load_tflite_model(path, class_names=None):
    """Reads a file that `export_tflite` wrote.

    Args:
        path: The file.
        class_names: Names in the order of the logits; None for the file's own.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it was not written by `export_tflite`, or the names do not fit its logits.
        ImportError: If LiteRT is not installed.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a TFLite file.")
    try:
        own, preprocessing = _texts(path)
        eval_crop = preprocessing["eval_crop"]
        image_size, classes = tflite_sizes(path)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} was not written by pit-keras export, or is damaged.") from error
    return TFLiteModel(path, _fitting(class_names, own, classes, path), image_size, eval_crop)


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
    own, preprocessing = _texts(path)
    names = _fitting(class_names, own, len(own), path)
    return TFLiteDetector(pathlib.Path(path), names, tuple(preprocessing["image_size"]))


def is_tflite_detector(path):
    """Whether a file was written by `export_detector_tflite`."""
    try:
        return _texts(path)[1].get("task") == DETECTION
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, AttributeError):
        return False


def _texts(path):
    """The class names and the preprocessing that a TFLite file of ours carries."""
    with zipfile.ZipFile(path) as archive:
        names = archive.read(CLASSES_FILE).decode().splitlines()
        return names, json.loads(archive.read(PREPROCESSING_FILE))


def _fitting(class_names, own, classes, path):
    """The names given, or the file's own; as many as it has classes."""
    names = tuple(own if class_names is None else class_names)
    if len(names) != classes:
        raise ValueError(f"There are {len(names)} class names for the {classes} classes of {path}.")
    return names


def run_tflite(path, images, threads=1):
    """Logits (N, classes) of a TFLite file for uint8 images (H, W, 3) of the model's own size.

    They are as many as there are images, whatever the batch of the file.

    Raises:
        ImportError: If LiteRT is not installed.
    """
    classify = signature(path, threads)
    batch = classify.get_input_details()["images"]["shape"][0]
    logits = [classify(images=filled)["logits"][:count] for filled, count in batches(images, batch)]
    return np.concatenate(logits)


def tflite_latency(path, image, threads=1, calls=CALLS, **others):
    """Median milliseconds of a call of a TFLite file; a call takes the whole batch of the file.

    Args:
        path: The file.
        image: uint8 (H, W, 3) of the model's own size, for all images of the batch.
        **others: What else the file takes of each image, by name.
        threads: Number of threads of LiteRT's.
        calls: Number of timed calls, after a few that are not.

    Raises:
        ImportError: If LiteRT is not installed.
    """
    interpreter = _interpreter(path, threads)
    interpreter.allocate_tensors()
    details = interpreter.get_signature_runner(SIGNATURE).get_input_details()
    for name, value in {"images": image, **others}.items():
        value = np.broadcast_to(value, details[name]["shape"])
        interpreter.set_tensor(details[name]["index"], value)
    return median_milliseconds(interpreter.invoke, calls)


def tflite_sizes(path):
    """Height and width of the images that a TFLite file takes, and its number of classes.

    Raises:
        ValueError: If LiteRT cannot load it.
        ImportError: If LiteRT is not installed.
    """
    try:
        classify = signature(path)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    _, height, width, _ = classify.get_input_details()["images"]["shape"]
    _, classes = classify.get_output_details()["logits"]["shape"]
    return (int(height), int(width)), int(classes)


def batches(images, batch):
    """Images (H, W, 3) in arrays (batch, H, W, 3), each with the number of images in it.

    The last one is filled up with its last image.
    """
    images = iter(images)
    while part := list(itertools.islice(images, batch)):
        yield np.stack(part + part[-1:] * (batch - len(part))), len(part)


def signature(path, threads=1):
    """The function of a TFLite file, called with arrays by name.

    Raises:
        ImportError: If LiteRT is not installed.
    """
    return _interpreter(path, threads).get_signature_runner(SIGNATURE)


def _interpreter(path, threads):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(
            "Running a TFLite file needs the package ai-edge-litert: pip install pit_keras[export]."
        ) from error
    return Interpreter(model_path=str(path), num_threads=int(threads))
