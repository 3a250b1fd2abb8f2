"""Spatial interaction against its definition, written slowly."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tolerances import assert_close

import pit_keras
from pit_keras import attention_maps
from pit_keras.config.fields import DataConfig
from pit_keras.data.labelled_images import ArraySource, open_source
from pit_keras.data.preprocessing import preprocess_evaluation
from pit_keras.explain.interaction import (
    Definition,
    check_measurable,
    convolution_interaction,
    interaction_model,
    interaction_of_source,
    interaction_shares,
    measure_interaction,
)
from pit_keras.explain.opened_networks import Network
from pit_keras.models.attention import TransformerBlock

TOKENS = ("spatial", "class", "all")
NAMES = [
    "pit_ti_distilled",
    "vit_ti",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("pit_ti", "vit_ti_distilled")),
]
THRESHOLDS = (0.02, 0.1)
# A share is a mean of means over at most 6 x 8 places and 2 tokens, of numbers that are 0 or 1.
ROUNDINGS = 2 * (6 * 8 + 2)


def small(name, **arguments):
    overrides = {"depths": (1, 2, 1)} if name.startswith("pit") else {"depth": 2}
    settings = {"patch_size": 4, "stride": 4, "head_dim": 8, "classes": 10, **overrides}
    model = pit_keras.create_model(name, **{**settings, "input_shape": (24, 32, 3), **arguments})
    # Larger than initial weights, so that attention is far from uniform.
    model.set_weights([3 * weight for weight in model.get_weights()])
    return model


def images(count=3):
    return np.random.default_rng(0).normal(size=(count, 24, 32, 3)).astype("float32")


def chosen(kind, num_tokens, positions):
    first = range(num_tokens)
    return {
        "class": list(first),
        "spatial": [position for position in range(positions) if position not in first],
        "all": list(range(positions)),
    }[kind]


def transcribed(attention, num_tokens, thresholds, queries="spatial", keys="spatial"):
    """For each image and threshold: over all queries, the share of keys that some head reaches."""
    batch, heads, positions, _ = attention.shape
    asking, counted = (chosen(kind, num_tokens, positions) for kind in (queries, keys))
    shares = np.zeros((batch, len(thresholds)))
    for image, (index, threshold) in itertools.product(range(batch), enumerate(thresholds)):
        of_queries = []
        for query in asking:
            reached = 0
            for key in counted:
                if any(attention[image, head, query, key] > threshold for head in range(heads)):
                    reached += 1
            of_queries.append(reached / len(counted))
        shares[image, index] = sum(of_queries) / len(asking)
    return shares


def random_attention(num_tokens, batch=2, heads=3, spatial=7):
    logits = np.random.default_rng(1).normal(size=(batch, heads, *2 * [num_tokens + spatial]))
    weights = np.exp(2 * logits)
    return (weights / weights.sum(axis=-1, keepdims=True)).astype("float32")


@pytest.mark.parametrize("num_tokens", [1, 2])
@pytest.mark.parametrize(("queries", "keys"), list(itertools.product(TOKENS, TOKENS)))
def test_shares_are_the_definition(num_tokens, queries, keys):
    attention = random_attention(num_tokens)
    thresholds = (0.3, 0.03, 0.1)

    shares = interaction_shares(attention, num_tokens, Definition(thresholds, queries, keys))

    expected = transcribed(attention, num_tokens, thresholds, queries, keys)
    assert_close(shares, expected, roundings=ROUNDINGS)


def test_attention_has_to_exceed_a_threshold_in_one_head():
    """Two heads of half the attention each do not reach together what none reaches alone."""
    attention = np.zeros((1, 2, 3, 3), "float32")
    attention[0, 0] = [[1, 0, 0], [0.5, 0.25, 0.25], [0.25, 0.75, 0]]
    attention[0, 1] = [[1, 0, 0], [0.5, 0.25, 0.25], [0.5, 0, 0.5]]

    shares = interaction_shares(attention, 1, Definition((0.0, 0.25, 0.5, 0.75, 1.0)))

    np.testing.assert_array_equal(shares, [[1, 0.5, 0.25, 0, 0]])


def test_thresholds_are_not_rounded_to_the_precision_of_the_weights():
    """The bfloat16 next to 0.01 is larger: a weight of this value exceeds it."""
    nearest = 0.010009765625
    attention = keras.ops.full((1, 1, 3, 3), nearest, dtype="bfloat16")

    shares = interaction_shares(attention, 1, Definition((0.01, nearest)))

    np.testing.assert_array_equal(shares, [[1, 0]])


def test_the_default_is_figure_5():
    attention = random_attention(1)
    expected = transcribed(attention, 1, (0.01, 0.1), "spatial", "spatial")
    assert_close(interaction_shares(attention), expected, roundings=ROUNDINGS)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_tells_the_interaction_of_each_block(name):
    model = small(name)
    num_tokens = 2 if name.endswith("distilled") else 1
    definition = Definition(THRESHOLDS)

    shares = interaction_model(model, definition)(images())

    maps = attention_maps(model)(images())
    expected = [transcribed(np.asarray(x), num_tokens, THRESHOLDS) for x in maps]
    assert shares.shape == (3, len(maps), 2)
    assert_close(shares, np.stack(expected, axis=1), roundings=ROUNDINGS)
    assert np.unique(expected).size > 5


def test_images_of_any_size():
    fixed = small("pit_ti", input_shape=(None, None, 3))
    maps = attention_maps(fixed)(images())
    expected = [transcribed(np.asarray(x), 1, THRESHOLDS) for x in maps]

    shares = interaction_model(fixed, Definition(THRESHOLDS))(images())

    assert_close(shares, np.stack(expected, axis=1), roundings=ROUNDINGS)


def test_a_block_gives_its_output_and_attention_in_one_pass():
    model = small("pit_ti_distilled")
    block = model.get_layer("stage2_block1")
    inputs = keras.Model(model.input, block.input)(images())

    outputs, attention = block.with_attention(inputs)

    np.testing.assert_array_equal(outputs, block(inputs))
    np.testing.assert_array_equal(attention, block.attention_of(inputs))


def test_the_model_stays_as_it_was(tmp_path):
    model = small("vit_ti")
    layers, logits = model.layers, np.asarray(model(images()))

    reader = interaction_model(model)

    assert model.layers == layers
    np.testing.assert_array_equal(model(images()), logits)
    np.testing.assert_array_equal(reader(images()), interaction_model(model)(images()))
    assert {id(weight) for weight in reader.weights} < {id(weight) for weight in model.weights}
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(interaction_model(loaded)(images()), reader(images()))


def test_shares_are_float32_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small("vit_ti")
    finally:
        keras.config.set_dtype_policy("float32")
    shares = interaction_model(model)(images())
    assert shares.dtype == "float32"
    maps = attention_maps(model)(images())
    expected = [transcribed(np.asarray(x), 1, (0.01, 0.1)) for x in maps]
    assert_close(shares, np.stack(expected, axis=1), roundings=ROUNDINGS)


def test_images_without_weight_do_not_count():
    model, pixels = small("vit_ti"), images(5)
    expected = np.mean(interaction_model(model)(pixels), axis=0)
    filled = np.concatenate([pixels, np.full_like(pixels[:1], 9)])
    weights = tf.constant([1.0, 1, 1, 1, 1, 0])
    batches = [
        {"image": filled[at : at + 3], "weight": weights[at : at + 3]} for at in range(0, 6, 3)
    ]

    shares, count = measure_interaction(model, batches)

    assert count == 5
    assert_close(shares, expected, roundings=ROUNDINGS + len(pixels))


@pytest.fixture(scope="module")
def network():
    model = small("pit_ti", input_shape=(24, 24, 3))
    return Network("runs/x", model, DataConfig(image_size=(24, 24), eval_crop=1.0), "its own")


def test_a_source_becomes_rows(network):
    source = open_source("digits")
    definition = Definition(THRESHOLDS, keys="all")

    rows = interaction_of_source(
        network, source, images=20, batch_size=8, definition=definition, progress=False
    )

    every = 360 // 20
    pixels = [preprocess_evaluation(x, network.data) for x in source.images["val"][::every]]
    maps = attention_maps(network.model)(np.stack(pixels))
    shares = [np.mean(transcribed(np.asarray(x), 1, THRESHOLDS, keys="all"), axis=0) for x in maps]
    # Written with six digits.
    written = [row["share"] for row in rows]
    np.testing.assert_allclose(written, np.ravel(shares), rtol=0, atol=0.51e-6)
    assert [(row["block"], row["layer"], row["grid"]) for row in rows[::2]] == [
        (1, "stage1_block1", "6x6"),
        (2, "stage2_block1", "3x3"),
        (3, "stage2_block2", "3x3"),
        (4, "stage3_block1", "2x2"),
    ]
    assert [row["threshold"] for row in rows] == 4 * list(THRESHOLDS)
    common = {
        "model": "runs/x",
        "weights": "its own",
        "kind": "measured",
        "queries": "spatial",
        "keys": "all",
        "images": 20,
        "dataset": "digits",
        "split": "val",
    }
    for row in rows:
        assert {name: row[name] for name in common} == common


def resnet(name="resnet50", side=224, **overrides):
    return pit_keras.create_model(name, input_shape=(side, side, 3), base_width=4, **overrides)


def shares_and_grids(model):
    found = convolution_interaction(model).values()
    return [(round(float(share * np.prod(grid)), 6), grid[0]) for share, grid in found]


def test_a_convolution_reads_nine_positions_of_its_map():
    """The 3 x 3 convolution that halves a map reads the larger one."""
    grids = 3 * [56] + [56] + 3 * [28] + [28] + 5 * [14] + [14] + 2 * [7]
    model = resnet()
    assert shares_and_grids(model) == [(9.0, grid) for grid in grids]
    assert next(iter(convolution_interaction(model))) == "stage1_block1_conv2"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: resnet(side=33, depths=(1, 1, 1, 1)), [(9, 9), (9, 9), (9, 5), (9, 3)]),
        (lambda: resnet(side=32, depths=(1, 1, 1, 2)), [(9, 8), (9, 8), (9, 4), (4, 2), (1, 1)]),
        (lambda: resnet("resnet50_no_pooling", depths=(1, 1, 1, 1)), 4 * [(9, 14)]),
        (
            lambda: resnet(depths=(1, 1, 1, 2), output_stride=16),
            [(9, 56), (9, 56), (9, 28), (9, 14), (9, 14)],
        ),
    ],
)
def test_no_more_positions_than_there_are(model, expected):
    assert shares_and_grids(model()) == expected


def test_a_network_of_convolutions_gives_the_approximation_and_needs_no_images():
    network = Network("resnet50", resnet(depths=(1, 1, 1, 1)), DataConfig(), "")

    rows = interaction_of_source(network, source=None)

    assert [row["threshold"] for row in rows] == 4 * [0.01, 0.1]
    assert [row["share"] for row in rows[::2]] == [row["share"] for row in rows[1::2]]
    assert rows[0]["share"] == round(9 / 56**2, 6)
    assert {row["kind"] for row in rows} == {"approximation"}
    assert {row["images"] for row in rows} == {""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"thresholds": (0.1, -0.01)}, r"a number in 0\.\.1, such as 0\.01; got -0\.01"),
        ({"thresholds": (1.5,)}, r"in 0\.\.1, such as 0\.01; got 1\.5"),
        ({"thresholds": (float("nan"),)}, "got nan"),
        ({"thresholds": ()}, "one or more, all different; got none"),
        ({"thresholds": (0.1, 0.1)}, "all different; got 0.1, 0.1"),
    ],
)
def test_a_definition_without_meaning_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Definition(**arguments)


def test_a_model_without_attention_is_refused():
    with pytest.raises(ValueError, match="resnet50 has no transformer blocks and so no attention"):
        interaction_model(resnet(depths=(1, 1, 1, 1)))
    with pytest.raises(ValueError, match="interaction_model reads functional models"):
        interaction_model("pit_ti")


def test_what_is_neither_is_refused_before_the_work():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs), name="plain")
    with pytest.raises(ValueError, match="plain has neither attention nor blocks of convolutions"):
        check_measurable(Network("plain", model, DataConfig(), ""), None, "val")


def test_an_empty_split_is_refused(network):
    none = {"train": tf.zeros((4, 8, 8, 3), tf.uint8), "val": tf.zeros((0, 8, 8, 3), tf.uint8)}
    labels = {"train": tf.zeros(4, tf.int64), "val": tf.zeros(0, tf.int64)}
    source = ArraySource("empty", ("a",), none, labels)
    with pytest.raises(ValueError, match="empty has no images in its split 'val'"):
        interaction_of_source(network, source)


def test_every_block_is_found():
    model = small("pit_ti")
    blocks = [layer for layer in model.layers if isinstance(layer, TransformerBlock)]
    assert interaction_model(model).output_shape == (None, len(blocks), 2)
