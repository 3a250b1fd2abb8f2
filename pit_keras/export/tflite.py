"""TFLite (LiteRT): one file for phones and small computers."""

import pathlib
import tempfile
import zipfile

import tensorflow as tf

from pit_keras.data.preprocessing import normalise
from pit_keras.export.class_names import CLASSES_FILE, class_names_text
from pit_keras.export.preprocessing_text import PREPROCESSING_FILE, preprocessing_text
from pit_keras.export.saved_model import save_function
from pit_keras.export.tflite_metadata import with_metadata
from pit_keras.export.tflite_quantization import check_calibration, int8_products, samples
from pit_keras.models.attention import has_transformer_blocks
from pit_keras.models.inference import logits_only

# What is in the file, by kind. The values are sentences for the file's description.
TFLITE_KINDS = {
    "float32": "in float32",
    "float16": "with weights in float16, computed in float32 where a device has nothing better",
    "dynamic": "with weights in int8 and activations quantised while it runs",
    "int8": "with matrix products in int8, calibrated on images",
}


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
    path, names = pathlib.Path(path), class_names_text(trained.class_names)
    model = _convert(trained, kind, batch, calibration)
    description = f"Image classifier of {len(trained.class_names)} classes {TFLITE_KINDS[kind]}."
    contents = with_metadata(model, trained.model.name, description, license)
    write_with_texts(path, contents, names, preprocessing_text(trained.data))


def write_with_texts(path, contents, names, preprocessing):
    """Writes a TFLite file with `classes.txt` and `preprocessing.json` behind the model."""
    path.write_bytes(contents)
    with zipfile.ZipFile(path, "a") as archive:
        # A fixed date and no compression: the same model gives the same bytes, and readers that
        # map the file into memory need no decoder.
        archive.writestr(zipfile.ZipInfo(CLASSES_FILE), names)
        archive.writestr(zipfile.ZipInfo(PREPROCESSING_FILE), preprocessing)


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


def _convert(trained, kind, batch, calibration):
    data, model = trained.data, logits_only(trained.model)
    selective = kind == "int8" and has_transformer_blocks(trained.model)

    def classify(images):
        images = normalise(images, data.mean, data.std)
        return {"logits": model(images, training=False)}

    # A fixed batch lets the converter compute all shapes: half the operations remain.
    images = tf.TensorSpec((batch, *data.image_size, 3), tf.uint8, name="images")
    with tempfile.TemporaryDirectory() as folder:
        save_function(classify, [images], model, folder)
        # Not `from_concrete_functions`: it does not freeze the variables of a Keras 3 model, and
        # the result computes NaN.
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if kind != "float32" and not selective:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        elif kind == "int8" and not selective:
            # The whole of a convolutional network holds in int8.
            converter.representative_dataset = lambda: samples(calibration, batch)
        contents = converter.convert()
    return int8_products(contents, samples(calibration, batch)) if selective else contents
