import pytest

from pit_keras.export.formats import FORMATS, checked_limits


def test_targets_are_different():
    assert len({format_.target for format_ in FORMATS.values()}) == len(FORMATS)


def test_limits_are_the_formats_own_or_those_asked_for():
    limits = checked_limits({"tflite_int8": 0.5}, ["tflite", "tflite_dynamic", "tflite_int8"])
    assert limits == {"tflite": None, "tflite_dynamic": 0.99, "tflite_int8": 0.5}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"onyx": 0.5}, "Unknown format 'onyx'; known are saved_model, saved"),
        ({"tflite_dynamic": 0.5}, "tflite_dynamic, which is not to be exported"),
        ({"tflite": 0.5}, "tflite computes what the Keras model does and is held to 1e-04"),
    ],
)
def test_other_limits_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        checked_limits(limits, ["tflite", "tflite_int8"])


def test_other_formats_are_refused():
    with pytest.raises(ValueError, match="Unknown format 'onyx'; known are saved_model, saved"):
        checked_limits({}, ["tflite", "onyx"])
