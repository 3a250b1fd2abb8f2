"""TFLite (LiteRT): one file for phones and small computers; written, read and run."""

import contextlib
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
from pit_keras.export import sidecars
from pit_keras.export.saved_model import SIGNATURE, save_function
from pit_keras.export.tflite_metadata import with_metadata
from pit_keras.export.tflite_quantization import int8_products
from pit_keras.models.attention import has_transformer_blocks
from pit_keras.models.boxes import detected
from pit_keras.models.inference import logits_only
from pit_keras.runs.trained_detector import TrainedDetector
from pit_keras.runs.trained_model import names_of_classes

# By kind, the end of the file's description.
TFLITE_KINDS = {
    "float32": "in float32",
    "float16": "with weights in float16, computed in float32 where a device has nothing better",
    "dynamic": "with weights in int8 and activations quantised while it runs",
    "int8": "with matrix products in int8, calibrated on images",
}


def export_tflite(
    trained, path, kind="float32", batch=1, calibration=None, license=None, saved=None
):
    """Writes a TFLite file that takes images of the model's own size.

    Its signature `serving_default` maps `images`, uint8 (batch, H, W, 3), to `logits`, float32
    (batch, classes). The normalisation is inside; resizing and cropping, which devices do better
    themselves, are not. Its operations are built in. The same model, and for `int8` the same
    images, give the same bytes.

    `classes.txt`, one name a line, and `preprocessing.json` are TFLite's "associated files": a zip
    archive behind the model, which interpreters ignore and `zipfile` reads. TFLite's metadata point
    to the names as the labels of the output, and have the licence.

    Args:
        trained: A `TrainedModel` on Keras' TensorFlow backend, computing in float32.
        kind: `float32`; `float16`, half the size; `dynamic`, a quarter of it; or `int8`, a quarter
            of it too, see `int8_products`. In a convolutional network all operations are in int8.
        batch: Number of images that the file takes at once.
        calibration: Used by `int8` alone, images such as the model will see: uint8 (N, H, W, 3) of
            the model's size, N at least 32, by `data.preprocessing.resize_and_crop`.
        saved: A folder of `save_for_tflite`, to write files of several kinds; None for one.
    """

    def samples():
        return ({"images": images} for images, _ in batches(calibration, batch))

    with _saved(trained, batch, saved) as folder:
        if kind == "int8" and has_transformer_blocks(trained.model):
            contents = int8_products(_converted(folder, "float32"), samples())
        else:
            contents = _converted(folder, kind, samples)
    description = f"Image classifier of {len(trained.class_names)} classes {TFLITE_KINDS[kind]}."
    contents = with_metadata(contents, trained.model.name, description, license)
    _write(path, contents, sidecars.texts(trained))


def tflite_size(trained):
    """Height and width of the images that the file of a `TrainedDetector` takes."""
    return trained.fixed_size or tuple(trained.data.image_size)


def export_detector_tflite(trained, path, kind="float32", batch=1, saved=None):
    """Writes a TFLite file of a `TrainedDetector`, for images of one size.

    Its signature `serving_default` takes `images`, uint8 (batch, H, W, 3): each scaled until it
    fits, aspect kept, at the left and top, and zeros beside or below it; and `content`, int32
    (batch, 2), the height and width of the image therein. With Q queries it gives `boxes`, float32
    (batch, Q, 4), left, top, right, bottom as shares of the sides of the image without its padding,
    beyond which they may reach; `scores`, float32 (batch, Q); and `labels`, int32 (batch, Q). They
    are in no order, and those of a low score mean nothing.

    Normalisation and the padding's mask are inside; names and preprocessing travel with it as in
    `export_tflite`, without TFLite metadata. So does `saved`.
    """
    with _saved(trained, batch, saved) as folder:
        contents = _converted(folder, kind)
    _write(path, contents, sidecars.texts(trained, tflite_size(trained)))


def save_for_tflite(trained, folder, batch=1):
    """Writes the SavedModel that TFLite files of all kinds are converted from."""
    if isinstance(trained, TrainedDetector):
        save_function(*_detecting(trained, batch), trained.model, folder)
    else:
        model = logits_only(trained.model)
        save_function(*_classifying(model, trained.data, batch), model, folder)


def _classifying(model, data, batch):
    """A classifier's function and its inputs."""

    def classify(images):
        images = normalise(images, data.mean, data.std)
        return {"logits": model(images, training=False)}

    # A fixed batch lets the converter compute all shapes: half the operations remain.
    return classify, [tf.TensorSpec((batch, *data.image_size, 3), tf.uint8, name="images")]


def _detecting(trained, batch):
    """A detector's function and its inputs."""

    def detect(images, content):
        outputs = trained.outputs(masked_inputs(images, content, trained.data))
        return detected(outputs, tf.ones((batch, 2)))  # shares

    return detect, [
        tf.TensorSpec((batch, *tflite_size(trained), 3), tf.uint8, name="images"),
        tf.TensorSpec((batch, 2), tf.int32, name="content"),
    ]


@contextlib.contextmanager
def _saved(trained, batch, folder):
    """A folder of `save_for_tflite`: the one that is given, or a temporary one."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        save_for_tflite(trained, temporary, batch)
        yield temporary


def _converted(folder, kind, samples=None):
    """The bytes of a TFLite file, from a folder of `save_for_tflite`; `samples` are for int8."""
    # Not `from_concrete_functions`: it does not freeze the variables of a Keras 3 model, and the
    # result computes NaN.
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif kind == "int8":
        converter.representative_dataset = samples
    return converter.convert()


def _write(path, contents, texts):
    """Writes a TFLite file with texts, by the names of their files, behind the model."""
    pathlib.Path(path).write_bytes(contents)
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in texts.items():
            # A fixed date, so that the same model gives the same bytes; no compression, since
            # readers that map the file into memory have no decoder.
            archive.writestr(zipfile.ZipInfo(name), text)


@dataclasses.dataclass(frozen=True)
class TFLiteModel:
    """Like a `TrainedModel`, but run by LiteRT from a file of `export_tflite`."""

    path: pathlib.Path
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    eval_crop: float
    apply_orientation: bool = False

    @functools.cached_property
    def _classify(self):
        return signature(self.path)

    def crop(self, image):
        """uint8 (H, W, 3) of the model's own size, from an image of any size."""
        return tf.cast(resize_and_crop(image, self.image_size, self.eval_crop), tf.uint8).numpy()

    def logits(self, images):
        """Logits (N, classes) of one or more uint8 images (H, W, 3), each of any size."""
        return self.logits_of_crops(map(self.crop, images))

    def logits_of_crops(self, crops):
        """Logits (N, classes) of any number of uint8 images (H, W, 3) of the model's own size."""
        batch = self._classify.get_input_details()["images"]["shape"][0]
        parts = batches(crops, batch)
        return np.concatenate([self._classify(images=part)["logits"][:n] for part, n in parts])


@dataclasses.dataclass(frozen=True)
class TFLiteDetector:
    """Like a `TrainedDetector`, but run by LiteRT from a file of `export_detector_tflite`."""

    path: pathlib.Path
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    apply_orientation: bool = False

    @functools.cached_property
    def _detect(self):
        return signature(self.path)

    def answers(self, image):
        """`boxes` (Q, 4) in pixels, `scores` (Q,) and `labels` (Q,) of a uint8 image (H, W, 3)."""
        batch = self._detect.get_input_details()["images"]["shape"][0]
        pixels, content = fit(image[np.newaxis], self.image_size, self.image_size)
        answers = self._detect(
            images=np.repeat(pixels, batch, axis=0), content=np.tile(content, (batch, 1))
        )
        boxes, scores, labels = (answers[name][0] for name in ("boxes", "scores", "labels"))
        height, width = image.shape[:2]
        boxes = boxes * [width, height, width, height]  # from shares
        return {"boxes": boxes, "scores": scores, "labels": labels}

    detections_of = TrainedDetector.detections_of


def load_tflite_model(path, class_names=None):
    """The `TFLiteModel` or `TFLiteDetector` of a file; class names are its own by default."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a TFLite file.")
    try:
        with zipfile.ZipFile(path) as archive:
            own = archive.read(sidecars.CLASSES_FILE).decode().splitlines()
            preprocessing = json.loads(archive.read(sidecars.PREPROCESSING_FILE))
        size, detects = tuple(preprocessing["image_size"]), "task" in preprocessing
        eval_crop = None if detects else preprocessing["eval_crop"]
        turns = preprocessing.get("apply_orientation", False)  # which earlier versions never did
        signature(path)  # an error if LiteRT cannot load it
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} was not written by pit-keras export, or is damaged.") from error
    names = names_of_classes(class_names or own, len(own), path, None)
    if detects:
        return TFLiteDetector(path, names, size, turns)
    return TFLiteModel(path, names, size, eval_crop, turns)


def call_of_tflite(path, threads):
    """A function of no arguments that runs a TFLite file once, with a whole batch of images."""
    run = signature(path, threads)
    inputs = run.get_input_details().items()
    ones = {name: np.ones(each["shape"], each["dtype"]) for name, each in inputs}
    return functools.partial(run, **ones)


def batches(images, batch):
    """Images in arrays (batch, H, W, 3), the last filled up, each with their number in it."""
    images = iter(images)
    while part := list(itertools.islice(images, batch)):
        yield np.stack(part + part[-1:] * (batch - len(part))), len(part)


def signature(path, threads=1):
    """The function of a TFLite file, called with arrays by name."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(
            "Running a TFLite file needs the package ai-edge-litert: pip install pit_keras[export]."
        ) from error
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    return interpreter.get_signature_runner(SIGNATURE)
