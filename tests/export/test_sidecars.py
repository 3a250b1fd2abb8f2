import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework.tensor_pb2 import TensorProto

from pit_keras.data.preprocessing import decode
from pit_keras.export.agreement import compare
from pit_keras.export.sidecars import class_names_text, prediction_log

# What the classes of tensorflow-serving-api 2.21.0 make of the request in the test.
FROM_SERVING_API = (
    b"22\n0\n\x12\n\x03pit\x1a\x0bserve_bytes\x12\x1a\n\x0bimage_bytes"
    b"\x12\x0b\x08\x07\x12\x04\x12\x02\x08\x01B\x01x"
)


# By message of the package `tensorflow.serving`: numbers of fields, and what they hold. On the wire
# the map `inputs` is a repeated message, and its `TensorProto` is bytes.
MESSAGES = {
    "PredictionLog": {"predict_log": (6, "PredictLog")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "InputsEntry")},
    "ModelSpec": {"name": (1, "string"), "signature_name": (3, "string")},
    "InputsEntry": {"key": (1, "string"), "value": (2, "bytes")},
}


def message_class(name):
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="warm_up.proto", package="tensorflow.serving", syntax="proto3"
    )
    for message, fields in MESSAGES.items():
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
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))


PredictionLog = message_class("PredictionLog")


def inputs_of(request):
    protos = {entry.key: TensorProto.FromString(entry.value) for entry in request.inputs}
    return {key: tf.constant(tf.make_ndarray(proto)) for key, proto in protos.items()}


def test_the_requests_can_be_replayed(exported):
    trained, folder = exported.trained, exported.folder / "saved_model/1"
    loaded = tf.saved_model.load(str(folder))
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(file))]
    requests = [PredictionLog.FromString(record).predict_log.request for record in records]
    assert [request.model_spec.signature_name for request in requests] == [
        "serving_default",
        "serve_bytes",
    ]
    assert {request.model_spec.name for request in requests} == {trained.model.name}

    pixels, encoded = (inputs_of(request) for request in requests)
    assert pixels["images"].shape == (1, 40, 24, 3)
    assert np.std(pixels["images"]) > 10
    image = decode(encoded["image_bytes"][0]).numpy()
    for request, inputs, shown in zip(
        requests, (pixels, encoded), (pixels["images"][0].numpy(), image), strict=True
    ):
        outputs = loaded.signatures[request.model_spec.signature_name](**inputs)
        assert compare(trained.logits([shown]), outputs["logits"]).within()


def test_messages_are_those_of_tensorflow_serving():
    log = prediction_log("pit", "serve_bytes", "image_bytes", tf.constant([b"x"]))
    assert log == FROM_SERVING_API


@pytest.mark.parametrize("bad", ["cat\ndog", "cat\r", "\u2028"])
def test_class_names_are_one_a_line(bad):
    assert class_names_text(("cat", "", "two words")) == "cat\n\ntwo words\n"
    with pytest.raises(ValueError, match="holds a line break"):
        class_names_text(("cat", bad))
