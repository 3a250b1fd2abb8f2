"""What travels with an exported model: class names, preprocessing, and requests to warm it up."""

import json
import pathlib

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

CLASSES_FILE = "classes.txt"
PREPROCESSING_FILE = "preprocessing.json"
DETECTION = "detection"
WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"


def class_names_text(class_names):
    """One name a line, in the order of the logits.

    Raises:
        ValueError: If a name holds a line break, which would shift all names after it.
    """
    for name in class_names:
        if name.splitlines() not in ([name], []):
            raise ValueError(
                f"The class name {name!r} holds a line break; {CLASSES_FILE} has one name a line."
            )
    return "".join(f"{name}\n" for name in class_names)


def preprocessing_text(data):
    """JSON of what `preprocess_evaluation` does as a `DataConfig` asks.

    An RGB image, 0..255, is scaled until it covers `image_size` (height, width) / `eval_crop`, of
    which the middle is cut out; then (pixel / 255 - `mean`) / `std`.
    """
    values = {
        "image_size": data.image_size,
        "eval_crop": data.eval_crop,
        "interpolation": "bicubic",
        "antialias": True,
        "channels": "RGB",
        "mean": data.mean,
        "std": data.std,
    }
    return json.dumps(values, indent=2) + "\n"


def detection_preprocessing_text(data, fixed_size=None):
    """JSON of what `preprocess_detection` does as a `DataConfig` asks.

    An RGB image, 0..255, is scaled until it fits into `image_size`, height and width, or turned for
    upright images unless it is `fixed`; (pixel / 255 - `mean`) / `std` is filled up with zeros at
    the right and below.
    """
    values = {
        "task": DETECTION,
        "image_size": fixed_size or data.image_size,
        "fixed": fixed_size is not None,
        "interpolation": "bilinear",
        "antialias": True,
        "channels": "RGB",
        "mean": data.mean,
        "std": data.std,
    }
    return json.dumps(values, indent=2) + "\n"


# The requests are `PredictionLog` messages of the package tensorflow-serving-api, which asks for a
# TensorFlow as new as itself. So the few fields that are needed are described here instead.
# Of each message of the package `tensorflow.serving`: its fields' numbers, and the message that a
# field holds, or "string" or "bytes". The map `inputs` is a repeated message on the wire, and the
# `TensorProto` in it is bytes.
_MESSAGES = {
    "PredictionLog": {"predict_log": (6, "PredictLog")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "InputsEntry")},
    "ModelSpec": {"name": (1, "string"), "signature_name": (3, "string")},
    "InputsEntry": {"key": (1, "string"), "value": (2, "bytes")},
}


def write_warm_up(folder, model_name, image_size):
    """Adds requests that TensorFlow Serving replays when it loads a model: no client waits for it.

    They are `serving_default` and `serve_bytes`, of one image each.

    Args:
        folder: The SavedModel's own, of one version.
        model_name: What the requests call the model.
        image_size: The image's height and width.
    """
    image = _gradient(*image_size)
    requests = [
        prediction_log(model_name, "serving_default", {"images": image[None]}),
        prediction_log(model_name, "serve_bytes", {"image_bytes": tf.io.encode_jpeg(image)[None]}),
    ]
    file = pathlib.Path(folder, WARM_UP_FILE)
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for request in requests:
            writer.write(request.SerializeToString(deterministic=True))


def prediction_log(model_name, signature, inputs):
    """The message `PredictionLog` of a request; `inputs` are tensors by name."""
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = model_name, signature
    for name, tensor in inputs.items():
        request.inputs.add(key=name, value=tf.make_tensor_proto(tensor).SerializeToString())
    return log


def _gradient(height, width):
    """A picture that gets redder to the right and greener downwards: uint8 (height, width, 3)."""
    rows, columns = np.meshgrid(
        np.linspace(0, 255, height), np.linspace(0, 255, width), indexing="ij"
    )
    return np.stack([columns, rows, np.full_like(rows, 128)], axis=-1).astype(np.uint8)


def _message_class(name):
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="warm_up.proto", package="tensorflow.serving", syntax="proto3"
    )
    for message, fields in _MESSAGES.items():
        added = file.message_type.add(name=message)
        for field_name, (number, kind) in fields.items():
            scalar = {"string": field.TYPE_STRING, "bytes": field.TYPE_BYTES}.get(kind)
            added.field.add(
                name=field_name,
                number=number,
                type=scalar or field.TYPE_MESSAGE,
                type_name=None if scalar else f".tensorflow.serving.{kind}",
                label=field.LABEL_REPEATED if field_name == "inputs" else field.LABEL_OPTIONAL,
            )
    # A pool of its own: the real package may be imported in the same process.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))


PredictionLog = _message_class("PredictionLog")
