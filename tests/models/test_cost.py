import itertools

import keras
import pytest
from shapes_only import shapes_only

import pit_keras
from pit_keras.models import cost
from pit_keras.models.cost import count_macs, count_parameters


def block_macs(positions, channels, mlp_ratio=4):
    """q, k, v and projection 4 C^2, the MLP 8 C^2 for a token; attention 2 C for a pair of them."""
    return (4 + 2 * mlp_ratio) * positions * channels**2 + 2 * positions**2 * channels


def pooling_macs(tokens, positions, channels):
    """Nine taps for each of 2 C outputs, and C x 2 C for each class token."""
    return positions * 2 * channels * 9 + tokens * 2 * channels**2


# Table 1 of the PiT paper and of DeiT's: patch, then each stage's grid, channels and blocks.
TABLE_1 = {
    "pit_ti": (16, (27, 14, 7), (64, 128, 256), (2, 6, 4)),
    "pit_xs": (16, (27, 14, 7), (96, 192, 384), (2, 6, 4)),
    "pit_s": (16, (27, 14, 7), (144, 288, 576), (2, 6, 4)),
    "pit_b": (14, (31, 16, 8), (256, 512, 1024), (3, 6, 4)),
    "vit_ti": (16, (14,), (192,), (12,)),
    "vit_s": (16, (14,), (384,), (12,)),
    "vit_b": (16, (14,), (768,), (12,)),
}


def closed_formula(patch, sides, widths, depths, tokens, mlp_ratio=4):
    """MACs from the numbers of table 1: patches, blocks, poolings and a head for each token."""
    stages = range(len(sides))
    return (
        sides[0] ** 2 * widths[0] * patch**2 * 3
        + sum(depths[i] * block_macs(tokens + sides[i] ** 2, widths[i], mlp_ratio) for i in stages)
        + sum(pooling_macs(tokens, sides[i + 1] ** 2, widths[i]) for i in stages[:-1])
        + tokens * widths[-1] * 1000
    )


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
def test_the_closed_formula_gives_the_papers_figures(name, giga):
    assert round(closed_formula(*TABLE_1[name], tokens=1) / 1e9, 2) == giga


QUICK = (("pit_ti", 1), ("pit_b", 2), ("vit_ti", 1))  # test_registry.py has all sizes


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        pytest.param(*variant, marks=[] if variant in QUICK else pytest.mark.slow)
        for variant in itertools.product(TABLE_1, (1, 2))
    ],
)
def test_the_closed_formula_of_every_variant(name, tokens):
    full_name = f"{name}_distilled" if tokens == 2 else name
    assert count_macs(shapes_only(full_name)) == closed_formula(*TABLE_1[name], tokens)


def test_the_closed_formula_with_another_mlp_and_dilated_pooling():
    model = shapes_only("pit_ti", mlp_ratio=2.5, output_stride=16)
    patch, _, widths, depths = TABLE_1["pit_ti"]
    expected = closed_formula(patch, (27, 14, 14), widths, depths, tokens=1, mlp_ratio=2.5)
    assert count_macs(model) == expected


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


def test_counting_leaves_nothing_behind():
    """Neither another policy, nor values that would be drawn later; after an error neither."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with pytest.raises(ValueError, match="patch"), cost.shapes_only():
            pit_keras.create_model("vit_ti", classes=3, patch_size=0)
        model = shapes_only("vit_ti", classes=3)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        with keras.StatelessScope():
            pass  # at whose end Keras draws what it owes
        assert not any(weight._value is not None for weight in model.weights)
    finally:
        keras.config.set_dtype_policy(before)


def test_parameters_are_those_that_are_trained():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(5), keras.layers.BatchNormalization()]
    )
    assert count_parameters(model) == 3 * 5 + 5 + 2 * 5


def test_a_detector_is_its_backbone_and_detr():
    """Encoder and decoder from their sizes: four C x C projections for each attention."""
    size, width, hidden, queries, classes = (400, 600), 256, 2048, 100, 91
    detector = shapes_only("detr_vit_s", input_shape=(*size, 3), classes=classes)
    backbone = shapes_only("vit_s", input_shape=(*size, 3), include_top=False)
    positions = 25 * 37
    encoder = positions * (4 * width**2 + 2 * width * hidden) + 2 * positions**2 * width
    decoder = (
        queries * (4 * width**2 + 2 * width * hidden)
        + 2 * queries**2 * width
        + 2 * (queries + positions) * width**2
        + 2 * queries * positions * width
    )
    heads = queries * width * (classes + 1 + 2 * width + 4)
    projection = positions * 384 * width
    expected = count_macs(backbone) + projection + 6 * encoder + 6 * decoder + heads
    assert count_macs(detector) == expected
