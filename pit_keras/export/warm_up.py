"""Requests that TensorFlow Serving replays when it loads a model, so that no client waits for it.

They are `PredictionLog` messages of the package tensorflow-serving-api. The few fields that are
needed are described here instead, for that package asks for a TensorFlow as new as itself.
"""

import pathlib

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"

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
    """Adds two requests to a SavedModel: `serving_default` and `serve_bytes`, one image each.

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
