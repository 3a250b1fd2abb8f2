"""Telling a checkpoint's model from the shapes of its tensors."""

import pathlib

import numpy as np
import pytest
from fixed_weights import TIMM_NAMES
from shapes_only import shapes_only

import pit_keras
from pit_keras.weights.recognition import Description, describe

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/models.npz")


def torch_shapes(name):
    lines = (line.split() for line in GOLDEN[f"{name}/keys"])
    return {key: tuple(map(int, shape)) for key, *shape in lines}


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_every_pit_and_vit_is_told_from_pytorchs_shapes(name):
    side = 14 if name.startswith("vit") else 31 if name.startswith("pit_b") else 27
    assert describe(torch_shapes(name)) == Description(name, 1000, 3, (side, side))


@pytest.mark.parametrize("name", ["pit_xs_distilled", "vit_ti"])
def test_keras_paths_tell_the_same(name):
    model = shapes_only(name, classes=5, input_shape=(96, 96, 4))
    shapes = {variable.path: tuple(variable.shape) for variable in model.weights}
    side = 11 if name.startswith("pit") else 6
    assert describe(shapes) == Description(name, 5, 4, (side, side))


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("resnet50", {"layer3.5.conv3.weight": (1024, 256, 1, 1), "fc.bias": (10,)}),
        ("regnety_160", {"s4.b1.conv3.conv.weight": (3024, 3024, 1, 1), "head.fc.bias": (10,)}),
    ],
)
def test_convolutional_networks_are_told_by_a_tensor_that_only_they_have(name, shapes):
    assert describe(shapes) == Description(name, 10, None, None)


def test_other_widths_or_depths_are_no_known_model():
    shapes = torch_shapes("pit_ti")
    fewer = {key: shape for key, shape in shapes.items() if "transformers.2.blocks.3" not in key}
    assert describe(fewer).name is None
    assert describe({**shapes, "transformers.0.blocks.0.norm1.weight": (65,)}).name is None
    assert describe({}) == Description(None, None, None, None)


def test_a_sequence_that_is_no_square_has_no_grid():
    shapes = {**torch_shapes("vit_ti"), "pos_embed": (1, 1 + 48, 192)}
    assert describe(shapes).grid is None


def test_the_checkpoint_of_another_variant_is_named():
    state = {key: np.zeros(shape, "float32") for key, shape in torch_shapes("pit_ti").items()}
    for model in (
        pit_keras.create_model("pit_xs", depths=(1, 1, 1)),
        pit_keras.create_model("vit_ti", depth=1),
    ):
        with pytest.raises(ValueError, match=r"It looks like a checkpoint of pit_ti\.$"):
            pit_keras.load_pytorch_weights(model, state)
