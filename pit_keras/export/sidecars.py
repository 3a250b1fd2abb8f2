"""What travels with an exported model: class names, preprocessing, and requests to warm it up."""

import json
import pathlib

import numpy as np
import tensorflow as tf

from pit_keras.runs.run_folder import class_names_text
from pit_keras.runs.trained_detector import TrainedDetector

CLASSES_FILE = "classes.txt"
PREPROCESSING_FILE = "preprocessing.json"
WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"


def texts(trained, fixed_size=None):
    """The contents of `CLASSES_FILE` and `PREPROCESSING_FILE` of a trained model, by name.

    A classifier's RGB image, 0..255, is scaled until it covers `image_size` (height, width) /
    `eval_crop`, and the middle is cut out; then (pixel / 255 - `mean`) / `std`. A detector's is
    scaled until it fits into `image_size`, height and width, or turned for upright images unless it
    is `fixed`; (pixel / 255 - `mean`) / `std` is filled up with zeros at the right and below. With
    `apply_orientation` a photograph is turned as its EXIF says before.
    """
    data = trained.data
    if isinstance(trained, TrainedDetector):
        size = fixed_size or trained.fixed_size
        values = {"task": "detection", "image_size": size or data.image_size, "fixed": bool(size)}
    else:
        values = {"image_size": data.image_size, "eval_crop": data.eval_crop}
    values["apply_orientation"] = data.apply_orientation
    values["interpolation"] = "bilinear" if "task" in values else "bicubic"
    values |= {"antialias": True, "channels": "RGB", "mean": data.mean, "std": data.std}
    return {
        CLASSES_FILE: class_names_text(trained.class_names),
        PREPROCESSING_FILE: json.dumps(values, indent=2) + "\n",
    }


def write_warm_up(folder, model_name, image_size):
    """Adds requests that TensorFlow Serving replays when it loads a model: no client waits for it.

    `folder` is that of one version; `image_size` is height and width.
    """
    rows, columns = np.meshgrid(*(np.linspace(0, 255, side) for side in image_size), indexing="ij")
    image = np.stack([columns, rows, np.full_like(rows, 128)], axis=-1).astype(np.uint8)
    file = pathlib.Path(folder, WARM_UP_FILE)
    file.parent.mkdir()
    jpeg = tf.io.encode_jpeg(image)
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(prediction_log(model_name, "serving_default", "images", image[None]))
        writer.write(prediction_log(model_name, "serve_bytes", "image_bytes", jpeg[None]))


def prediction_log(model_name, signature, name, tensor):
    """TensorFlow Serving's message `PredictionLog` of a request with one input, as bytes.

    The package tensorflow-serving-api would write it, but requires a TensorFlow as new as itself.
    """
    spec = _field(1, model_name.encode()) + _field(3, signature.encode())
    proto = tf.make_tensor_proto(tensor).SerializeToString()
    entry = _field(1, name.encode()) + _field(2, proto)  # of the map `inputs`
    request = _field(1, spec) + _field(2, entry)
    return _field(6, _field(1, request))  # predict_log, request


def _field(number, content):
    """A field of a protobuf: its number, its length in groups of seven bits, the bytes."""
    length, rest = bytearray(), len(content)
    while rest > 127:
        length.append(rest & 127 | 128)
        rest >>= 7
    return bytes([number << 3 | 2, *length, rest]) + content
