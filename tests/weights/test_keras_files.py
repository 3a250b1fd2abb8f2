"""Keras' own weight files through the one door for all formats."""

import re
import zipfile

import keras
import numpy as np
import pytest

import pit_keras
from pit_keras.models.serialization import read_model
from pit_keras.weights import load_weights


def small(**arguments):
    sizes = {"patch_size": 4, "stride": 2, "head_dim": 8, "depths": (1, 1, 1)}
    return pit_keras.create_model(
        "pit_ti", **{"input_shape": (32, 32, 3), "classes": 7, **sizes, **arguments}
    )


@pytest.fixture(scope="module", params=["whole.keras", "only.weights.h5"])
def saved(request, tmp_path_factory):
    """A model and a file of its weights."""
    model, path = small(), tmp_path_factory.mktemp("weights") / request.param
    model.save(path) if path.suffix == ".keras" else model.save_weights(path)
    return model, path


@pytest.fixture(scope="module")
def refusing():
    """A model that takes none of the files that it is given."""
    return small()


@pytest.fixture(scope="module")
def kept(refusing, tmp_path_factory):
    """A file of a small model."""
    path = tmp_path_factory.mktemp("kept") / "small.keras"
    refusing.save(path)
    return path


def assert_refused(model, path):
    before = model.get_weights()
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_weights(model, path)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_come_back_exactly(saved):
    model, path = saved
    other = small()
    load_weights(other, path)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras, before its error
@pytest.mark.parametrize("arguments", [{"head_dim": 4}, {"depths": (1, 2, 1)}, {"patch_size": 3}])
def test_a_model_that_the_weights_do_not_fit_is_left_as_it_was(saved, arguments):
    assert_refused(small(**arguments), saved[1])


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ({"patch_size": 8}, "--config.model.patch_size=4"),
        ({"patch_size": 8, "stride": 4}, "--config.model.patch_size=4 --config.model.stride=2"),
        ({"depths": (1, 2, 1)}, "--config.model.depths='(1, 1, 1)'"),
    ],
)
def test_the_sizes_of_a_keras_file_that_does_not_fit_are_flags_to_copy(arguments, flags, kept):
    with pytest.raises(ValueError, match=rf"small\.keras has .*{re.escape(flags)}\)"):
        small(**arguments, weights=kept)


@pytest.mark.parametrize("name", ["more.keras", "more.weights.h5"])
def test_tensors_left_over_are_refused(refusing, name, tmp_path):
    path, larger = tmp_path / name, small(depths=(1, 1, 2))
    larger.save(path) if path.suffix == ".keras" else larger.save_weights(path)
    assert_refused(refusing, path)


@pytest.mark.parametrize("name", ["dropout.keras", "dropout.weights.h5"])
def test_the_state_of_dropout_is_no_part_of_the_weights(name, tmp_path):
    path, trained, model = tmp_path / name, small(drop_rate=0.1, drop_path_rate=0.1), small()
    trained.save(path) if path.suffix == ".keras" else trained.save_weights(path)
    load_weights(model, path)
    for a, b in zip(trained.weights, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["nan.keras", "nan.weights.h5"])
def test_values_that_are_not_finite_are_refused(refusing, name, tmp_path):
    path, broken = tmp_path / name, small()
    broken.get_layer("norm").beta.assign(np.full(64, np.nan, "float32"))
    broken.save(path) if path.suffix == ".keras" else broken.save_weights(path)
    assert_refused(refusing, path)


def test_an_h5_file_tells_too_little_to_be_adapted(refusing, tmp_path):
    path = tmp_path / "only.weights.h5"
    small(classes=8).save_weights(path)
    assert_refused(refusing, path)


@pytest.mark.parametrize("left", [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved, left, tmp_path):
    model, path = saved
    content = path.read_bytes()
    damaged = tmp_path / path.name
    damaged.write_bytes(content[: left if left >= 1 else int(left * len(content))])
    assert_refused(model, damaged)


def test_a_description_larger_than_its_weights_is_refused_before_memory_is_taken(tmp_path):
    path, changed = tmp_path / "dense.keras", tmp_path / "changed.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(path)
    with zipfile.ZipFile(path) as original, zipfile.ZipFile(changed, "w") as archive:
        for name in original.namelist():
            content = original.read(name)
            archive.writestr(name, content.replace(b'"units": 3', b'"units": 1000000000000'))
    read_model(path)
    with pytest.raises(ValueError, match=r"changed\.keras .* a size of 1000000000000, but holds"):
        read_model(changed)
