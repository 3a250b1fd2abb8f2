"""Numbers equal to the published DETR's on the same weights (tests/golden/make_detr.py)."""

import math
import pathlib

import keras
import numpy as np
import pytest
from fixed_weights import fixed_feature_maps, fixed_padding, fixed_state_dict
from tolerances import assert_close, random_walk

import pit_keras
from pit_keras.models import backbone_layers
from pit_keras.models.detr import decoded, heads
from pit_keras.weights.pytorch_layouts import BACKBONE

GOLDEN_FOLDER = pathlib.Path(__file__).parents[1] / "golden"
GOLDEN = np.load(GOLDEN_FOLDER / "detr.npz")
SIZES = {
    "classes": 5,
    "queries": 7,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "hidden_width": 32,
    "hidden_heads": 4,
    "feed_forward": 48,
}


def shapes_in(lines):
    return {key: tuple(map(int, shape)) for key, *shape in (line.split() for line in lines)}


def whole_state_dict():
    """A checkpoint of DETR on a ResNet-50, of the golden file's sizes."""
    backbone = np.load(GOLDEN_FOLDER / "convolutional.npz")["resnet50/keys"]
    shapes = {
        BACKBONE + key: shape
        for key, shape in shapes_in(backbone).items()
        if not key.startswith("fc.")
    }
    shapes |= shapes_in(GOLDEN["keys"])
    shapes["input_proj.weight"] = (32, 2048, 1, 1)
    return fixed_state_dict(shapes)


@pytest.fixture(scope="module")
def detector():
    model = pit_keras.create_model("detr_resnet50", input_shape=(65, 80, 3), **SIZES)
    state_dict = whole_state_dict()
    assert pit_keras.load_pytorch_weights(model, state_dict) == len(state_dict)
    return model


@pytest.fixture(scope="module")
def found(detector):
    """What the detector's layers behind the backbone make of the fixed feature maps."""
    parts = {layer.name: layer for layer in detector.layers}
    projection = keras.layers.Conv2D(32, 1, name="input_projection")
    maps = fixed_feature_maps(24)
    projection.build(maps.shape)
    state_dict = fixed_state_dict(shapes_in(GOLDEN["keys"]))
    kernel = np.transpose(state_dict["input_proj.weight"], (2, 3, 1, 0))
    projection.set_weights([kernel, state_dict["input_proj.bias"]])

    features = keras.Input(maps.shape[1:])
    padding = keras.Input(maps.shape[1:3], dtype="bool")
    layers = decoded(projection(features), parts, 2, 3, padding)
    of_layers = [heads(objects, parts) for objects in layers]
    outputs = {name: [found[name] for found in of_layers] for name in ("logits", "boxes")}
    return keras.Model([features, padding], outputs)([maps, fixed_padding()])


@pytest.mark.parametrize("name", ["logits", "boxes"])
def test_every_decoder_layer_finds_what_the_reference_finds(found, name):
    expected = GOLDEN[name]  # (B, L, Q, ...)
    assert len(found[name]) == expected.shape[1] == 3
    # Terms of the sums: the projection's, and in each of five layers at most two attentions
    # (projections of 32, heads of 8, 35 places), the two products of the MLP (32 and 48) and three
    # normalisations; then the heads' three products.
    terms = 24 + 5 * (2 * (4 * 32 + 8 + 2 * 35) + 32 + 48 + 3 * 2 * 32) + 3 * 32
    for layer, values in enumerate(found[name]):
        assert_close(values, expected[:, layer], roundings=random_walk(terms))


def test_positions_and_memory_equal_the_reference(detector):
    maps, padding = fixed_feature_maps(24), fixed_padding()
    positions = detector.get_layer("positions")(maps, padding)
    # Sines and cosines of angles up to 2 pi, made with a product, a sum, a power, two divisions.
    roundings = 2 * math.pi * 5 + 1
    assert_close(positions, GOLDEN["positions"], roundings=roundings)
    alone = detector.get_layer("positions")(maps)
    # The first image has no padding.
    assert_close(alone[0], GOLDEN["positions"][0], roundings=roundings)


def test_a_whole_checkpoint_is_carried_over(detector):
    state_dict = whole_state_dict()
    kernel = detector.get_layer("stage4_block3_conv2").kernel.numpy()
    expected = state_dict[f"{BACKBONE}layer4.2.conv2.weight"]
    np.testing.assert_array_equal(kernel, np.transpose(expected, (2, 3, 1, 0)))
    attention = detector.get_layer("decoder_layer2").cross_attention
    fused = state_dict["transformer.decoder.layers.1.multihead_attn.in_proj_weight"]
    np.testing.assert_array_equal(attention.value.kernel.numpy(), fused[64:].T)
    assert len(backbone_layers(detector)) + 13 + 3 * 3 == len(detector.layers)  # nine forks


def test_a_checkpoint_that_lacks_a_tensor_is_refused(detector):
    state_dict = whole_state_dict()
    del state_dict["transformer.encoder.layers.1.norm2.bias"]
    with pytest.raises(ValueError, match=r"lacks 1 of .*encoder\.layers\.1\.norm2\.bias"):
        pit_keras.load_pytorch_weights(detector, state_dict)
