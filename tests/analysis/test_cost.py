import keras
import pytest

import pit_keras
from pit_keras.analysis.cost import count_macs, count_parameters


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("pit_ti", 0.70),  # in the paper's table 1: 0.71
        ("pit_xs", 1.39),  # 1.4
        ("pit_s", 2.87),  # 2.9
        ("pit_b", 12.40),  # 12.5
        ("vit_ti", 1.25),  # 1.3
        ("vit_s", 4.60),  # 4.6
        ("vit_b", 17.56),  # 17.6
    ],
)
def test_the_models_of_the_paper(name, giga):
    assert round(count_macs(pit_keras.create_model(name)) / 1e9, 2) == giga


def block_macs(positions, channels):
    """q, k, v and projection 4 C^2, the MLP 8 C^2 for a token; attention 2 C for a pair of them."""
    return 12 * positions * channels**2 + 2 * positions**2 * channels


def pooling_macs(tokens, positions, channels):
    """Nine taps for each of 2 C outputs, and C x 2 C for each class token."""
    return positions * 2 * channels * 9 + tokens * 2 * channels**2


@pytest.mark.parametrize("tokens", [1, 2])
def test_a_pit_of_another_size(tokens):
    """48 x 40 pixels, patches of 4 every 2: grids of 23 x 19, 12 x 10 and 6 x 5."""
    model = pit_keras.create_model(
        "pit_ti_distilled" if tokens == 2 else "pit_ti",
        input_shape=(48, 40, 3),
        classes=11,
        patch_size=4,
        stride=2,
        head_dim=8,
        depths=(1, 3, 2),
    )
    assert count_macs(model) == (
        23 * 19 * 16 * 4 * 4 * 3
        + block_macs(tokens + 23 * 19, 16)
        + pooling_macs(tokens, 12 * 10, 16)
        + 3 * block_macs(tokens + 12 * 10, 32)
        + pooling_macs(tokens, 6 * 5, 32)
        + 2 * block_macs(tokens + 6 * 5, 64)
        + tokens * 64 * 11
    )


@pytest.mark.parametrize("tokens", [1, 2])
def test_a_vit_of_another_size_without_its_top(tokens):
    model = pit_keras.create_model(
        "vit_ti_distilled" if tokens == 2 else "vit_ti",
        input_shape=(48, 40, 3),
        include_top=False,
        patch_size=8,
        stride=8,
        head_dim=8,
        depth=3,
    )
    assert count_macs(model) == 6 * 5 * 24 * 8 * 8 * 3 + 3 * block_macs(tokens + 6 * 5, 24)


def test_layers_of_keras():
    images = keras.Input((9, 7, 3))
    x = keras.layers.Conv2D(4, 3, padding="valid")(images)  # -> (7, 5, 4)
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)(x)
    x = keras.layers.BatchNormalization()(x)  # (4, 3, 8); counts for nothing
    x = keras.layers.Dense(5)(x)  # at each position
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, keras.layers.Dense(2)(x))
    expected = 7 * 5 * 4 * 27 + 4 * 3 * 8 * 9 + 4 * 3 * 8 * 5 + 5 * 2
    assert count_macs(model) == expected


def test_a_layer_whose_products_are_not_known_is_named():
    model = keras.Sequential([keras.Input((9, 3)), keras.layers.Conv1D(4, 3, name="odd_one")])
    with pytest.raises(TypeError, match=r"MACs of Conv1D \(odd_one\) are not known"):
        count_macs(model)


@pytest.mark.parametrize("shape", [(None, 32, 3), (32, None, 3)])
def test_a_variable_size_is_an_error(shape):
    model = keras.Sequential([keras.Input(shape), keras.layers.Conv2D(4, 3)], name="any_size")
    with pytest.raises(ValueError, match="any_size has no fixed input size"):
        count_macs(model)


def test_parameters_are_those_that_are_trained():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(5), keras.layers.BatchNormalization()]
    )
    assert count_parameters(model) == 3 * 5 + 5 + 2 * 5
