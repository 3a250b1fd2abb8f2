import functools

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from tolerances import assert_close

import pit_keras
from pit_keras import attention_maps, pre_logits, stage_features
from pit_keras.models import two_headed

NAMES = ["pit_ti", "pit_ti_distilled", "vit_ti", "vit_ti_distilled"]


@functools.cache
def small(name, **arguments):
    """A small model, which tests share and only look at."""
    overrides = (
        {"stride": 2, "depths": (1, 2, 1)} if name.startswith("pit") else {"stride": 4, "depth": 2}
    )
    settings = {"input_shape": (20, 28, 3), "classes": 10, "patch_size": 4, "head_dim": 8}
    model = pit_keras.create_model(name, **{**settings, **overrides, **arguments})
    # Larger than initial weights, so that attention is far from uniform.
    model.set_weights([3 * weight for weight in model.get_weights()])
    return model


def images(count=2):
    return np.random.default_rng(0).normal(size=(count, 20, 28, 3)).astype("float32")


@pytest.mark.parametrize(("stages", "widths"), [(None, (16, 32, 64)), ((3, 1), (64, 16))])
def test_any_stages_in_any_order(stages, widths):
    model = small("pit_ti")

    maps = stage_features(model, stages)(images())

    assert tuple(feature_map.shape[-1] for feature_map in maps) == widths
    expected = keras.Model(model.input, model.get_layer("stage1").output[1])(images())
    np.testing.assert_array_equal(maps[-1 if stages else 0], expected)


def test_one_stage_is_one_map():
    assert stage_features(small("pit_ti"), 2)(images()).shape == (2, 5, 7, 32)
    assert stage_features(small("vit_ti"))(images()).shape == (2, 5, 7, 24)


@pytest.mark.parametrize(
    ("name", "layer"), [("pit_ti_distilled", "pooling2"), ("vit_ti", "stage1_block1")]
)
def test_a_logit_depends_on_what_enters_the_last_block_and_not_on_the_last_map(name, layer):
    model = small(name)
    entering = model.get_layer(layer).output
    opened = keras.Model(model.input, [stage_features(model).outputs[-1], entering, model.output])

    with tf.GradientTape() as tape:
        last_map, tokens, logits = opened(images())
        logit = logits[:, 3]
    of_map, of_tokens = tape.gradient(logit, [last_map, tokens], unconnected_gradients="zero")

    assert np.abs(of_map).max() == 0
    count = tokens.shape[1] - np.prod(last_map.shape[1:3])
    assert (np.abs(of_tokens[:, count:]).max(axis=-1) > 0).all()


def test_a_stage_may_end_in_its_map_alone():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, name="stage1")(inputs)
    x = keras.layers.Conv2D(5, 3, name="stage2")(x)
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))

    assert [m.shape[1:] for m in stage_features(network).outputs] == [(3, 3, 4), (1, 1, 5)]


@pytest.mark.parametrize("name", NAMES)
def test_pre_logits_are_what_the_model_without_its_top_gives(name):
    model, topless = small(name), small.__wrapped__(name, include_top=False)
    topless.set_weights(model.get_weights()[: len(topless.weights)])

    features = pre_logits(model)(images())

    np.testing.assert_array_equal(features, topless(images()))
    np.testing.assert_array_equal(features, pre_logits(topless)(images()))


def test_the_head_turns_pre_logits_into_logits():
    model = small("pit_ti")

    features = pre_logits(model)(images())

    np.testing.assert_array_equal(model.get_layer("head")(features), model(images()))


def transcribed_attention(block, sequence):
    """softmax(q k^T / sqrt(d)) of one image and one head after the other, in float64."""
    x = np.asarray(block.attention_norm(sequence), "float64")
    kernel, bias = (np.asarray(v, "float64") for v in block.attention.qkv.weights)
    channels = x.shape[-1]
    size = channels // block.num_heads
    maps = np.zeros((len(x), block.num_heads, x.shape[1], x.shape[1]))
    for image in range(len(x)):
        projected = x[image] @ kernel + bias
        for head in range(block.num_heads):
            columns = slice(head * size, (head + 1) * size)
            query = projected[:, :channels][:, columns]
            key = projected[:, channels : 2 * channels][:, columns]
            weights = np.exp(query @ key.T / np.sqrt(size))
            maps[image, head] = weights / weights.sum(-1, keepdims=True)
    return maps


@pytest.mark.parametrize("name", NAMES)
def test_attention_maps_are_the_definition(name):
    model = small(name)
    blocks = [layer for layer in model.layers if "_block" in layer.name]
    inputs = keras.Model(model.input, [block.input for block in blocks])(images())

    maps = attention_maps(model)(images())

    assert len(maps) == len(blocks)
    for block, sequence, attention in zip(blocks, inputs, maps, strict=True):
        expected = transcribed_attention(block, sequence)
        assert attention.shape == expected.shape
        tokens, channels = sequence.shape[1:]
        sums = np.sum(attention, axis=-1, dtype="float64")
        assert_close(sums, np.ones(sums.shape), roundings=tokens)
        assert expected.std() > 0.1 / tokens
        # The scores are sums of C / heads products of sums of C; then the softmax's sum.
        projected = ops.matmul(block.attention_norm(sequence), block.attention.qkv.kernel)
        largest = max(1.0, float(ops.max(ops.abs(projected))) ** 2)
        roundings = (2 * channels + channels // block.num_heads) * largest + tokens
        assert_close(attention, expected, roundings=roundings)


def test_blocks_are_chosen_by_name_or_place():
    model = small("pit_ti")
    by_name = attention_maps(model, "stage2_block2")

    for blocks in (2, -2, ["stage2_block2"]):
        np.testing.assert_array_equal(attention_maps(model, blocks)(images()), by_name(images()))
    last, first = attention_maps(model, [-1, "stage1_block1"])(images())
    assert (last.shape[1], first.shape[1]) == (8, 2)


def test_attention_of_a_model_is_not_changed_by_reading_it():
    model = small("pit_ti_distilled")
    weights, logits = len(model.weights), np.asarray(model(images()))

    extractors = [attention_maps(model), attention_maps(model), stage_features(model)]

    assert len(model.weights) == weights
    assert model.get_layer("stage1_block1").output.shape == (None, 2 + 9 * 13, 16)
    np.testing.assert_array_equal(model(images()), logits)
    shared = {id(variable) for variable in model.weights}
    for extractor in extractors:
        assert isinstance(extractor, keras.Model)
        assert {id(variable) for variable in extractor.weights} < shared


def test_everything_is_read_from_a_model_loaded_in_a_fresh_process(tmp_path):
    model = small("pit_ti_distilled")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images())
    script = (
        "import keras, numpy, pit_keras as p\n"
        "model = keras.models.load_model('model.keras')\n"
        "readers = p.pre_logits(model), p.stage_features(model, 1), p.attention_maps(model, -1)\n"
        "values = [reader(numpy.load('images.npy')) for reader in readers]\n"
        "numpy.savez('values.npz', *map(keras.ops.convert_to_numpy, values))\n"
    )

    forked.run_code(script, tmp_path).check_returncode()

    loaded = np.load(tmp_path / "values.npz")
    readers = pre_logits(model), stage_features(model, 1), attention_maps(model, -1)
    for index, reader in enumerate(readers):
        np.testing.assert_array_equal(loaded[f"arr_{index}"], reader(images()))


def test_attention_maps_are_float32_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small.__wrapped__("pit_ti")
    finally:
        keras.config.set_dtype_policy("float32")

    attention = attention_maps(model, 0)(images())

    assert attention.dtype == "float32"
    sums = np.sum(attention, axis=-1, dtype="float64")  # of weights that are kept in bfloat16
    assert_close(sums, np.ones(sums.shape), roundings=1, dtype="bfloat16")


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_the_classifier_of_keras_applications_is_found(name):
    model = pit_keras.create_model(name, input_shape=(32, 32, 3), classes=7)
    classifier = model.get_layer("logits" if name == "mobilenet_v3_small" else "predictions")
    kernel, bias = classifier.get_weights()
    inputs = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")

    features = np.asarray(pre_logits(model)(inputs))

    assert features.shape == (2, kernel.shape[-2])
    logits = features @ kernel.reshape(kernel.shape[-2:]) + bias
    assert_close(logits, model(inputs), roundings=len(kernel.reshape(-1, len(bias))) + 1)


def dense_network(shape=(2, 2)):
    return keras.Sequential([keras.Input(shape), keras.layers.Dense(1)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stage_features(dense_network()), "it has no stages"),
        (lambda: stage_features(small("pit_ti"), (1, 4)), r"\(1, 4\); its stages are 1, 2, 3"),
        (lambda: stage_features(small("pit_ti"), ()), "its stages are 1, 2, 3"),
        (lambda: pre_logits(dense_network()), r"does not give features \(B, C\)"),
        (lambda: pre_logits(dense_network((2,))), "classifier; create it with include_top=False"),
        (lambda: attention_maps(dense_network()), "no transformer blocks"),
        (
            lambda: attention_maps(small("pit_ti"), "stage1_block2"),
            "'stage1_block2'; its blocks are stage1_block1, stage2_block1, stage2_block2, stage3_b",
        ),
        (lambda: attention_maps(small("pit_ti"), [4]), "its blocks are stage1_block1"),
    ],
)
def test_what_a_model_does_not_have_is_an_error_that_names_what_it_has(call, message):
    with pytest.raises(ValueError, match=message):
        call()


UNKNOWN = [1.5, Ellipsis, [1, 7], b"1", "", (), [None]]


@pytest.mark.parametrize("unknown", UNKNOWN, ids=repr)
def test_what_is_no_stage_or_block_is_refused_whatever_its_type(unknown):
    model = small("pit_ti")

    with pytest.raises(ValueError, match=r"^pit_ti has no stages .*; its stages are 1, 2, 3\.$"):
        stage_features(model, unknown)
    with pytest.raises(ValueError, match=r"^pit_ti has no blocks .*; its blocks are stage1_bl"):
        attention_maps(model, unknown)


@pytest.mark.parametrize("two", [np.int64(2), [np.int32(2)], range(2, 3)], ids=repr)
def test_numpys_integers_are_integers(two):
    model = small("pit_ti")

    assert stage_features(model, two).outputs[0].shape == (None, 5, 7, 32)
    assert attention_maps(model, two).layers[-1].name == "stage2_block2_attention_map"


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    "model", [None, "pit_ti", small, Subclassed(), keras.Sequential([keras.layers.Dense(1)])]
)
@pytest.mark.parametrize("reader", [stage_features, pre_logits, attention_maps, two_headed])
def test_only_functional_models_can_be_read(reader, model):
    with pytest.raises(ValueError, match=f"^{reader.__name__} reads functional models.*; got "):
        reader(model)


def test_saving_attention_maps_says_what_to_save(tmp_path):
    with pytest.raises(NotImplementedError, match="call attention_maps after loading it"):
        attention_maps(small("pit_ti")).save(tmp_path / "maps.keras")

    assert not list(tmp_path.iterdir())
