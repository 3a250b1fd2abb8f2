import pytest

from pit_keras.create import create_model
from pit_keras.training.assembly import uses_xla


@pytest.fixture(scope="module")
def transformer():
    sizes = {"patch_size": 4, "stride": 4, "head_dim": 4, "depths": (1, 1, 1)}
    return create_model("pit_ti", classes=3, input_shape=(16, 16, 3), **sizes)


@pytest.fixture(scope="module")
def convolutional():
    sizes = {"depths": (1, 1, 1, 1), "base_width": 4}
    return create_model("resnet50", classes=3, input_shape=(32, 32, 3), **sizes)


def test_on_and_off_are_obeyed(transformer, convolutional):
    for model in (transformer, convolutional):
        assert uses_xla("on", "float32", model)
        assert not uses_xla("off", "mixed_float16", model)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_auto_compiles_on_a_processor_what_was_faster_there(precision, transformer, convolutional):
    assert uses_xla("auto", precision, transformer) == (precision == "mixed_float16")
    assert not uses_xla("auto", precision, convolutional)
