import dataclasses

import numpy as np
import pytest

from pit_keras.create import create_model
from pit_keras.data.labelled_images import open_source
from pit_keras.runs.run_folder import RunFolder
from pit_keras.training.assembly import model_of, uses_xla


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


def test_heads_of_a_run_are_taken_by_the_names_of_the_classes(make_tiny_config, tmp_path, capsys):
    config, folder = make_tiny_config(), RunFolder(tmp_path / "run")
    source = dataclasses.replace(open_source("digits"), class_names=("a", "b", "c"))
    folder.create(config, source.class_names)
    trained = model_of(config, source)
    trained.get_layer("head").bias.assign([1.0, 2.0, 3.0])
    trained.save(folder.model)

    other = dataclasses.replace(source, class_names=("c", "new", "a"))
    for weights in (folder.path, folder.model):
        model = model_of(config, other, str(weights))
        kernel, bias = model.get_layer("head").get_weights()
        expected, _ = trained.get_layer("head").get_weights()
        np.testing.assert_array_equal(kernel[:, [0, 2]], expected[:, [2, 0]])
        assert (kernel[:, 1] != expected[:, 1]).any()
        assert (bias[0], bias[2]) == (3.0, 1.0)
    assert "matched by the names of the classes; 1 of the 3 begin anew" in capsys.readouterr().out
    same = model_of(config, source, str(folder.path)).get_layer("head").get_weights()
    np.testing.assert_array_equal(same[0], expected)
