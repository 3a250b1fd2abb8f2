"""Numbers equal to timm's PyTorch models on the same weights (tests/golden/make_models.py)."""

import pathlib

import keras
import numpy as np
import pytest
from fixed_weights import fixed_images, fixed_state_dict, sampled

import pit_keras
from pit_keras.models import stage_features, tracing_for_xla

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/models.npz")
TOLERANCE = 1e-4  # of the largest value


def torch_state_dict(name):
    """Fixed weights in timm's layout; the golden file holds the names and shapes."""
    lines = [line.split() for line in GOLDEN[f"{name}/keys"]]
    return fixed_state_dict({key: tuple(map(int, shape)) for key, *shape in lines})


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("name", pit_keras.list_models("[pv]it_*"))
def test_logits_and_stages_equal_the_reference(name):
    model = pit_keras.create_model(name)
    pit_keras.load_pytorch_weights(model, torch_state_dict(name))
    features = stage_features(model)
    both = keras.Model(model.input, [model.output, *features.outputs])

    logits, *maps = (np.asarray(output) for output in both(fixed_images()))

    assert_close(logits, GOLDEN[f"{name}/logits"])
    for stage, feature_map in enumerate(maps, 1):
        assert_close(sampled(feature_map), GOLDEN[f"{name}/stage{stage}"])
    assert f"{name}/stage{len(maps) + 1}" not in GOLDEN


def test_the_form_for_xla_has_the_same_numbers():
    model = pit_keras.create_model("pit_ti")
    pit_keras.load_pytorch_weights(model, torch_state_dict("pit_ti"))
    with tracing_for_xla():
        logits = np.asarray(model(fixed_images()))
    assert_close(logits, GOLDEN["pit_ti/logits"])


def test_the_authors_key_layout_gives_the_same_model():
    state = torch_state_dict("pit_ti_distilled")
    authors = {}
    for key, value in state.items():
        for stage in (1, 2):
            key = key.replace(f"transformers.{stage}.pool.", f"pools.{stage - 1}.")
        authors[key] = value
    assert authors.keys() != state.keys()
    model = pit_keras.create_model("pit_ti_distilled")
    pit_keras.load_pytorch_weights(model, authors)
    assert_close(np.asarray(model(fixed_images())), GOLDEN["pit_ti_distilled/logits"])
