import pytest

from pit_keras.export.formats import FORMATS, check_formats, checked_limits


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
        ({"tflite_int8": 1.5}, r"share in 0..1; got 1.5"),
        ({"tflite_int8": float("nan")}, r"share in 0..1; got nan"),
    ],
)
def test_other_limits_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        checked_limits(limits, ["tflite", "tflite_int8"])


def test_no_format_is_refused():
    with pytest.raises(ValueError, match="No format"):
        check_formats([])
