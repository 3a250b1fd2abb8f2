"""Numbers equal to timm's PyTorch models on the same weights (tests/golden/make_models.py)."""

import pathlib

import keras
import numpy as np
import pytest
from fixed_weights import fixed_images, fixed_state_dict, sampled
from tolerances import assert_close, random_walk, terms_along

import pit_keras
from pit_keras.models import stage_features

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/models.npz")
# The others differ from these in widths, heads and depths, which test_registry.py counts.
QUICK = ("pit_ti", "pit_ti_distilled", "vit_ti", "vit_ti_distilled")


def torch_state_dict(name):
    """Fixed weights in timm's layout; the golden file holds the names and shapes."""
    lines = [line.split() for line in GOLDEN[f"{name}/keys"]]
    return fixed_state_dict({key: tuple(map(int, shape)) for key, *shape in lines})


def variants():
    """All PiTs and ViTs; the larger ones are more of the same."""
    for name in pit_keras.list_models("[pv]it_*"):
        yield pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("name", variants())
def test_logits_and_stages_equal_the_reference(name):
    model = pit_keras.create_model(name)
    pit_keras.load_pytorch_weights(model, torch_state_dict(name))
    features = stage_features(model)
    both = keras.Model(model.input, [model.output, *features.outputs])

    logits, *maps = (np.asarray(output) for output in both(fixed_images()))

    roundings = random_walk(terms_along(model))
    assert_close(logits, GOLDEN[f"{name}/logits"], roundings=roundings)
    for stage, feature_map in enumerate(maps, 1):
        assert_close(sampled(feature_map), GOLDEN[f"{name}/stage{stage}"], roundings=roundings)
    assert f"{name}/stage{len(maps) + 1}" not in GOLDEN
