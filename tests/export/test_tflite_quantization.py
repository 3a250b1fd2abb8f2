import numpy as np
import pytest
from tflite_files import operations

from pit_keras.export.tflite import export_tflite


def test_int8_is_the_products_alone(exported):
    listed = operations(exported.folder / "model_int8.tflite")
    assert [entry for entry in listed if entry[0] == "CONV_2D"] == [
        ("CONV_2D", ["INT8", "INT8", "INT32"], ["INT8"])
    ]
    *products, first, second = [entry for entry in listed if entry[0] == "FULLY_CONNECTED"]
    assert len(products) == 3 * 4 + 2  # of three blocks, and for the class tokens of two poolings
    for _, inputs, outputs in products:
        assert (inputs, outputs) == (["INT8", "INT8", "INT32"], ["INT8"])
    for _, inputs, outputs in (first, second):  # the classifiers, whose logits nothing may clip
        assert (inputs, outputs) == (["FLOAT32", "INT8", "FLOAT32"], ["FLOAT32"])
    others = [entry for entry in listed if entry[0] in ("RSQRT", "SOFTMAX", "GELU", "BATCH_MATMUL")]
    assert {operation for operation, _, _ in others} == {
        "RSQRT",
        "SOFTMAX",
        "GELU",
        "BATCH_MATMUL",
    }
    assert all({*inputs, *outputs} == {"FLOAT32"} for _, inputs, outputs in others)


@pytest.mark.parametrize(
    ("kind", "calibration", "message"),
    [
        ("int8", None, r"needs 32 or more calibration images, uint8 of shape \(32, 32, 3\)"),
        ("int8", np.zeros((31, 32, 32, 3), np.uint8), r"got uint8 of shape \(31,"),
        ("int8", np.zeros((32, 32, 24, 3), np.uint8), r"got uint8 of shape \(32, 32, 24,"),
        ("int8", np.zeros((32, 32, 32, 3), np.float32), "got float32 of shape"),
        ("int8", np.zeros((32, 32, 3), np.uint8), r"got uint8 of shape \(32, 32, 3\)"),
        ("dynamic", np.zeros((32, 32, 32, 3), np.uint8), "Only int8 takes calibration images"),
    ],
)
def test_other_calibration_images_are_refused(make_trained, tmp_path, kind, calibration, message):
    with pytest.raises(ValueError, match=message):
        export_tflite(make_trained(), tmp_path / "m.tflite", kind, calibration=calibration)
    assert not any(tmp_path.iterdir())
