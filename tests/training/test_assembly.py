import dataclasses
import shutil

import numpy as np
import pytest

from pit_keras.config.fields import Config
from pit_keras.config.recipes import recipe
from pit_keras.create import create_model
from pit_keras.data.labelled_images import open_source
from pit_keras.runs.run_folder import RunFolder
from pit_keras.training.assembly import model_of, sizes_of_weights, uses_xla, weights_in_reach
from pit_keras.weights.recognition import Checkpoint
from pit_keras.weights.released import converted_file, write_converted


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


@pytest.fixture
def earlier_run(tmp_path):
    """A folder as a run of a small network leaves it."""
    config, folder = recipe("vanilla", "pit_ti"), RunFolder(tmp_path / "earlier")
    config.model.patch_size, config.model.stride, config.model.depths = 4, 2, (1, 1, 1)
    folder.create(config, ("a", "b"))
    folder.model.touch()
    return folder


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("pit_ti", {}, {"patch_size": 4, "stride": 2, "depths": (1, 1, 1)}),
        ("pit_ti_distilled", {"stride": 4}, {"patch_size": 4, "depths": (1, 1, 1)}),
        ("detr_pit_ti", {"depths": (2, 2, 2)}, {"patch_size": 4, "stride": 2}),
        ("pit_s", {}, {}),
    ],
)
@pytest.mark.parametrize("file", ["", "model.keras"])
def test_a_model_has_the_sizes_of_the_run_that_it_starts_from(
    name, given, taken, file, earlier_run, tmp_path
):
    config, folder = Config(), RunFolder(tmp_path / "new")
    config.model = dataclasses.replace(config.model, name=name, **given)
    assert sizes_of_weights(config, folder) == {}
    config.model.weights = str(earlier_run.path / file)
    assert sizes_of_weights(config, folder) == taken


def test_a_run_that_was_begun_needs_its_weights_no_more(earlier_run, tmp_path):
    config, folder = earlier_run.read_config(), RunFolder(tmp_path / "new")
    config.model.weights = str(earlier_run.path)
    folder.create(config, ("a", "b"))
    (folder.checkpoints).mkdir()
    (folder.checkpoints / "step-00000001.npz").touch()
    shutil.rmtree(earlier_run.path)
    again = recipe("vanilla", "pit_ti")
    again.model.weights = config.model.weights
    assert sizes_of_weights(again, folder) == config.model.overrides
    again.model.weights = "elsewhere"
    assert sizes_of_weights(again, folder) == {}


def test_a_weights_file_alone_tells_no_sizes(tmp_path):
    config = Config()
    config.model.weights = str(tmp_path / "weights.pth")
    assert sizes_of_weights(config, RunFolder(tmp_path / "new")) == {}


def test_released_weights_are_taken_from_the_cache(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    checkpoint = Checkpoint("somewhere", {"norm.weight": np.ones(3, "float32")})
    write_converted(converted_file("pit_ti"), checkpoint, {})
    assert weights_in_reach("pit_ti") == "imagenet"
    assert weights_in_reach("resnet50_no_pooling") is None  # never released
    assert "Without them it is trained from random weights." in capsys.readouterr().out
