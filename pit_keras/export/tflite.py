"""TFLite (LiteRT): one file for phones and small computers."""

import json
import pathlib
import tempfile
import zipfile

import tensorflow as tf

from pit_keras.data.preprocessing import normalise
from pit_keras.export.class_names import CLASSES_FILE, class_names_text
from pit_keras.export.saved_model import save_function

PREPROCESSING_FILE = "preprocessing.json"


def export_tflite(trained, path):
    """Writes a float32 TFLite file that takes one image of the model's own size.

    Its signature `serving_default` maps `images`, uint8 (1, H, W, 3), to `logits`, float32
    (1, classes). The normalisation is inside; resizing and cropping, which devices do better
    themselves, are not. It consists of TFLite's built-in operations alone.

    The class names are TFLite's "associated file" `classes.txt`: a zip archive behind the model,
    which interpreters ignore; `zipfile.ZipFile(path).read("classes.txt")` gives one name a line.
    Beside them, `preprocessing.json` holds the centre crop's share, `eval_crop`.

    Args:
        trained: A `TrainedModel` on Keras' TensorFlow backend, computing in float32.
        path: The file to write.

    Raises:
        ValueError: If a class name holds a line break.
    """
    path, names = pathlib.Path(path), class_names_text(trained.class_names)
    path.write_bytes(_convert(trained))
    with zipfile.ZipFile(path, "a") as archive:
        # A fixed date and no compression: the same model gives the same bytes, and readers that
        # map the file into memory need no decoder.
        archive.writestr(zipfile.ZipInfo(CLASSES_FILE), names)
        crop = json.dumps({"eval_crop": trained.data.eval_crop})
        archive.writestr(zipfile.ZipInfo(PREPROCESSING_FILE), crop)


def _convert(trained):
    data = trained.data

    def classify(images):
        images = normalise(images, data.mean, data.std)
        return {"logits": trained.model(images, training=False)}

    # A fixed batch lets the converter compute all shapes: half the operations remain.
    images = tf.TensorSpec((1, *data.image_size, 3), tf.uint8, name="images")
    with tempfile.TemporaryDirectory() as folder:
        save_function(classify, images, trained.model, folder)
        # Not `from_concrete_functions`: it does not freeze the variables of a Keras 3 model, and
        # the result computes NaN.
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()
