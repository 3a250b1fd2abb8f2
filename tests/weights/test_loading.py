"""Keras' own weight files through the one door for all formats."""

import numpy as np
import pytest

import pit_keras
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


def assert_refused(model, path):
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"The weights in {path} do not fit pit_ti: "):
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
@pytest.mark.parametrize("arguments", [{"classes": 8}, {"head_dim": 4}, {"depths": (1, 2, 1)}])
def test_a_model_that_the_weights_do_not_fit_is_left_as_it_was(saved, arguments):
    assert_refused(small(**arguments), saved[1])


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved, kept, tmp_path):
    model, path = saved
    content = path.read_bytes()
    damaged = tmp_path / path.name
    damaged.write_bytes(content[: kept if kept >= 1 else int(kept * len(content))])
    assert_refused(model, damaged)
