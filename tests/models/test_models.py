import math

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from shapes_only import shapes_only
from tolerances import assert_close, random_walk, terms_along

import pit_keras
from pit_keras.models import stage_features, two_headed
from pit_keras.models.attention import TransformerBlock
from pit_keras.models.execution import compiled_by_xla
from pit_keras.models.pooling import TokenPooling


def small(name, **arguments):
    sizes = (
        {"stride": 2, "depths": (1, 1, 1)} if name.startswith("pit") else {"stride": 4, "depth": 1}
    )
    settings = {"input_shape": (32, 32, 3), "classes": 10, "patch_size": 4, "head_dim": 16}
    return pit_keras.create_model(name, **{**settings, **sizes, **arguments})


def images(count=2):
    return np.random.default_rng(0).normal(size=(count, 32, 32, 3)).astype("float32")


@pytest.mark.parametrize("name", ["pit_ti_distilled", "vit_ti_distilled"])
def test_every_weight_gets_a_gradient(name):
    model = two_headed(small(name))
    with tf.GradientTape() as tape:
        loss = sum(ops.mean(logits**2) for logits in model(images(), training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        # The softmax does not see what is added to all keys alike, so a third of the bias of
        # queries, keys and values may be without gradient, but never all of it.
        assert np.abs(gradient).max() > 0, variable.path


def test_gradients_for_xla_are_the_same():
    """Through a pooling of 8 rows, an even number, and 7 columns."""
    whole = small("pit_ti", input_shape=(18, 16, 3), head_dim=8)
    model = keras.Model(whole.input, whole.get_layer("pooling1").output)
    inputs = images()[:, :18, :16]

    def gradients():
        with tf.GradientTape() as tape:
            loss = ops.mean(model(inputs, training=True) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    compiled = tf.function(gradients, jit_compile=True, autograph=False)
    plain = gradients()
    assert len(plain) == len(model.trainable_variables) == 20
    roundings = 2 * terms_along(whole)  # there and back
    for a, b in zip(compiled(), plain, strict=True):
        assert_close(a, b, roundings=roundings)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_layers_know_whether_xla_compiles_them(jit_compile):
    """By `fit` and by functions, one within another."""
    answers = []

    class Probe(keras.layers.Layer):
        def call(self, inputs):
            answers.append(compiled_by_xla())
            return inputs

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), Probe()])
    assert answers.pop() is False  # while the model is built
    model.compile("sgd", "mse", jit_compile=jit_compile)
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    outer = tf.function(tf.function(model, autograph=False), jit_compile=jit_compile)
    outer(tf.ones((1, 3)))
    assert len(answers) >= 2
    assert set(answers) == {jit_compile}


# test_features.py loads a PiT in one.
@pytest.mark.parametrize(
    "name", [pytest.param("pit_ti_distilled", marks=pytest.mark.slow), "vit_ti"]
)
def test_a_saved_model_loads_in_a_fresh_process(name, tmp_path):
    model = small(name, drop_path_rate=0.1)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images())
    script = (
        "import keras, numpy, pit_keras\n"
        "model = keras.models.load_model('model.keras')\n"
        "numpy.save('logits.npy', model(numpy.load('images.npy')))\n"
    )
    forked.run_code(script, tmp_path).check_returncode()
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), model(images()))


def test_config_round_trip_keeps_every_layer():
    model = small("pit_ti_distilled", drop_rate=0.1, attention_drop_rate=0.2, drop_path_rate=0.3)
    again = keras.Model.from_config(model.get_config())
    for before, after in zip(model.layers, again.layers, strict=True):
        assert before.get_config() == after.get_config()
    assert [v.shape for v in model.weights] == [v.shape for v in again.weights]


def test_drop_path_grows_as_the_authors_have_it():
    model = shapes_only("pit_ti", drop_path_rate=0.12)
    rates = [layer.drop_path_rate for layer in model.layers if isinstance(layer, TransformerBlock)]
    assert rates == pytest.approx([0.12 * i / 12 for i in range(12)])


def test_drop_path_drops_whole_branches_of_an_image_and_keeps_the_mean():
    block = TransformerBlock(2, drop_path_rate=0.5)
    tokens = ops.tile(keras.random.normal((1, 5, 8), seed=0), (400, 1, 1))
    block.build(tokens.shape)
    # Without the MLP's branch there are two outcomes: the branch left out, or twice as strong.
    for variable in block.mlp.weights:
        variable.assign(ops.zeros_like(variable))
    branch = np.asarray(block(tokens[:1]) - tokens[:1])
    difference = np.asarray(block(tokens, training=True) - tokens)
    left_out = np.abs(difference).max(axis=(1, 2)) == 0
    doubled = np.repeat(2 * branch, (~left_out).sum(), 0)
    scale = np.abs(tokens[0]).max() + np.abs(doubled).max()
    # Terms of attention on 5 tokens of 8 channels; then each sum with the tokens, and without them.
    terms = 2 * 8 + 8 + 4 + 2 * 5 + 8
    assert_close(difference[~left_out], doubled, roundings=terms + 4, scale=scale)
    assert 0.4 < left_out.mean() < 0.6


def test_dropout_is_only_for_training():
    model = small("pit_ti", drop_rate=0.3, attention_drop_rate=0.3, drop_path_rate=0.3)
    plain = small("pit_ti")
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(model(images()), plain(images()))
    assert np.abs(model(images(), training=True) - plain(images())).max() > 1e-3


def test_initialisation_is_the_authors():
    keras.utils.set_random_seed(0)
    model = pit_keras.create_model("pit_s", depths=(1, 1, 1))
    for variable in model.weights:
        values, name = np.asarray(variable), variable.path
        if "norm/" in name:
            assert (values == (1 if name.endswith("gamma") else 0)).all(), name
        elif name.endswith(("position_embedding", "class_tokens")):
            assert 0.015 < values.std() < 0.025, name
            assert np.abs(values).max() <= 0.0401, name
    # (layer, fan in); both kernel and bias are uniform within 1 / sqrt(fan in).
    block = model.get_layer("stage1_block1")
    pooling = model.get_layer("pooling1")
    for layer, fan_in in [
        (model.get_layer("patch_embedding"), 16 * 16 * 3),
        (block.attention.qkv, 144),
        (block.attention.projection, 144),
        (block.mlp.expand, 144),
        (block.mlp.reduce, 576),
        (pooling.depthwise_conv, 9),
        (pooling.class_dense, 144),
        (model.get_layer("head"), 576),
    ]:
        bound = 1 / math.sqrt(fan_in)
        for values in (np.asarray(layer.kernel), np.asarray(layer.bias)):
            assert 0.9 * bound < np.abs(values).max() <= bound, layer.path
            assert abs(values.std() - bound / math.sqrt(3)) < 0.15 * bound, layer.path


def test_no_two_weights_begin_with_the_same_values():
    model = small("pit_ti_distilled")
    starts = [
        np.asarray(variable).reshape(-1)[:8].round(6).tolist()
        for variable in model.trainable_variables
        if variable.name not in ("gamma", "beta")
    ]
    # The scale depends on fan in, the sign does not: signs of all pairs would agree in a copy.
    signs = {tuple(np.sign(values)) for values in starts}
    assert len(signs) > 0.7 * min(len(starts), 2**8)
    heads = [np.asarray(model.get_layer(name).kernel) for name in ("head", "head_dist")]
    assert abs(np.corrcoef(heads[0].ravel(), heads[1].ravel())[0, 1]) < 0.5  # of a copy: 1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_in_half_and_answers_in_float32(policy):
    plain = small("pit_ti_distilled")
    keras.config.set_dtype_policy(policy)
    try:
        model = small("pit_ti_distilled")
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(plain.get_weights())
    half = policy.removeprefix("mixed_")
    for layer in model.get_layer("pooling1").depthwise_conv, model.get_layer("stage1_block1").mlp:
        assert layer.compute_dtype == half
        assert layer.variable_dtype == "float32"
    assert model.get_layer("stage3_block1").output.dtype == half
    logits = model(images())
    assert logits.dtype == "float32"
    expected = plain(images())
    assert np.abs(logits - expected).max() > 0
    # Sums are kept in float32, so that each operation rounds once: patches, positions; in a block
    # two normalisations, six products, softmax, GELU, two sums; two poolings; a normalisation.
    assert_close(logits, expected, roundings=random_walk(2 + 3 * 12 + 2 + 1), dtype=half)


def test_distilled_output_is_the_mean_of_two_heads_that_share_weights():
    model = small("pit_ti_distilled")
    heads = two_headed(model)
    class_logits, distillation_logits = heads(images())
    # Without another sum in it this is the same to the bit, in whatever order two are added.
    np.testing.assert_array_equal(model(images()), (class_logits + distillation_logits) / 2)
    assert {id(v) for v in heads.weights} == {id(v) for v in model.weights}
    with pytest.raises(ValueError, match="'head_dist'"):
        two_headed(small("pit_ti"))


def test_stage_features_of_a_loaded_model(tmp_path):
    model = small("pit_ti_distilled")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(stage_features(model)(images()), stage_features(loaded)(images()), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="it has no stages"):
        stage_features(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))


def test_pooling_is_a_convolution_padded_on_both_sides():
    """On an even grid too, where Keras' "same" would pad on one side only."""
    pooling = TokenPooling(multiplier=2)
    feature_map, tokens = np.zeros((1, 4, 4, 1), "float32"), np.zeros((1, 1, 1), "float32")
    feature_map[0, 0, 0, 0] = 1  # only the centre tap of the first output sees the corner
    pooling.build([tokens.shape, feature_map.shape])
    kernel = np.arange(18, dtype="float32").reshape(3, 3, 1, 2)
    pooling.depthwise_conv.set_weights([kernel, np.zeros(2, "float32")])
    pooled = np.asarray(pooling([tokens, feature_map]))[0, 1:]  # (2 * 2, 2)
    np.testing.assert_array_equal(pooled, [kernel[1, 1, 0], [0, 0], [0, 0], [0, 0]])
