import sys

import keras
import numpy as np
import pytest

from pit_keras.export.agreement import compare
from pit_keras.export.families import Job, in_float32, why_not


@pytest.mark.parametrize(
    ("name", "policy"), [("pit_ti_distilled", "mixed_bfloat16"), ("vit_ti", "mixed_float16")]
)
def test_a_model_of_mixed_precision_computes_in_float32(make_trained, photographs, name, policy):
    reference = make_trained(name)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        trained = make_trained(name, fresh=True)
    finally:
        keras.config.set_dtype_policy(before)
    trained.model.set_weights(reference.model.get_weights())
    images, expected = photographs[:2], reference.logits(photographs[:2])
    # 16 bits do show.
    assert not compare(expected, trained.logits(images)).within()
    np.testing.assert_array_equal(in_float32(trained).logits(images), expected)


def test_a_model_in_float32_stays_as_it_is(make_trained):
    trained = make_trained()
    assert in_float32(trained).model is trained.model


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("onnx", "onnxscript", "onnx"), ("tflite", "ai_edge_quantizer", "export")],
)
def test_packages_that_are_missing_are_told(make_trained, monkeypatch, name, package, extra):
    job = Job(make_trained())
    assert why_not(name, job) is None
    monkeypatch.setitem(sys.modules, package, None)
    words = f"its packages are not installed: pip install 'pit_keras[{extra}]'"
    assert why_not(name, job) == words
