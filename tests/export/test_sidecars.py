import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from pit_keras.data.preprocessing import decode
from pit_keras.export.agreement import compare
from pit_keras.export.sidecars import PredictionLog, class_names_text, prediction_log
from pit_keras.runs.versioned_folder import version_folder

# What the classes of tensorflow-serving-api 2.21.0 make of the request in the test.
FROM_SERVING_API = (
    b"22\n0\n\x12\n\x03pit\x1a\x0bserve_bytes\x12\x1a\n\x0bimage_bytes"
    b"\x12\x0b\x08\x07\x12\x04\x12\x02\x08\x01B\x01x"
)


def inputs_of(request):
    protos = {entry.key: TensorProto.FromString(entry.value) for entry in request.inputs}
    return {key: tf.constant(tf.make_ndarray(proto)) for key, proto in protos.items()}


def test_the_requests_can_be_replayed(exported):
    trained, folder = exported.trained, version_folder(exported.folder / "saved_model")
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
    log = prediction_log("pit", "serve_bytes", {"image_bytes": tf.constant([b"x"])})
    assert log.SerializeToString(deterministic=True) == FROM_SERVING_API


@pytest.mark.parametrize("bad", ["cat\ndog", "cat\r", "\u2028"])
def test_class_names_are_one_a_line(bad):
    assert class_names_text(("cat", "", "two words")) == "cat\n\ntwo words\n"
    with pytest.raises(ValueError, match="holds a line break"):
        class_names_text(("cat", bad))
