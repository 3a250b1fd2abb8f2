"""Models of any image size, `input_shape=(None, None, 3)`, against models of one size."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from shapes_only import shapes_only
from tolerances import assert_close, random_walk, terms_along

import pit_keras
from pit_keras.models import stage_features
from pit_keras.models.resampling import resampled

ANY = (None, None, 3)
SLOW = pytest.mark.slow
NAMES = [
    *("pit_ti_distilled", "vit_ti"),
    *(pytest.param(name, marks=SLOW) for name in ("pit_ti", "vit_ti_distilled")),
]


def small(name, input_shape, base_size=None, **arguments):
    overrides = (
        {"stride": 2, "depths": (1, 1, 1)} if name.startswith("pit") else {"stride": 4, "depth": 2}
    )
    settings = {"classes": 10, "patch_size": 4, "head_dim": 8, **overrides, **arguments}
    return pit_keras.create_model(name, input_shape=input_shape, base_size=base_size, **settings)


def images(height, width):
    return np.random.default_rng(0).normal(size=(2, height, width, 3)).astype("float32")


def fixed_and_variable(name, **arguments):
    """Two models with the same weights, for 28 x 20 only and for any size."""
    fixed = small(name, (28, 20, 3), **arguments)
    variable = small(name, ANY, base_size=(28, 20), **arguments)
    variable.set_weights([3 * weight for weight in fixed.get_weights()])
    fixed.set_weights(variable.get_weights())
    return fixed, variable


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_a_fixed_size(name, tmp_path):
    fixed, variable = fixed_and_variable(name)

    assert [(v.path, v.shape) for v in fixed.weights] == [
        (v.path, v.shape) for v in variable.weights
    ]
    np.testing.assert_array_equal(fixed(images(28, 20)), variable(images(28, 20)))
    fixed.save_weights(tmp_path / "fixed.weights.h5")
    loaded = small(name, ANY, base_size=(28, 20), weights=tmp_path / "fixed.weights.h5")
    np.testing.assert_array_equal(fixed(images(28, 20)), loaded(images(28, 20)))


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("pit_ti", {"depths": (1, 1, 1)}),
        ("pit_b_distilled", {"depths": (1, 1, 1)}),
        ("vit_ti", {"depth": 1}),
    ],
)
def test_the_embedding_is_that_of_224(name, depth):
    embeddings = [
        shapes_only(name, input_shape=shape, **depth).get_layer("position_embedding")
        for shape in (ANY, (224, 224, 3))
    ]

    assert embeddings[0].position_embedding.shape == embeddings[1].position_embedding.shape


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(40, 33), pytest.param((17, 46), marks=SLOW)])
def test_another_size_is_a_fixed_model_with_the_embedding_resampled(name, size):
    base, variable = fixed_and_variable(name)
    fixed = small(name, (*size, 3))
    grid = fixed.get_layer("patch_embedding").output.shape[1:3]
    for target, source in zip(fixed.weights, base.weights, strict=True):
        if source.name == "position_embedding":
            tokens = 0 if name.startswith("pit") else fixed.get_layer("class_tokens").num_tokens
            target.assign(resampled_embedding(source, (7, 5) if tokens else (13, 9), grid, tokens))
        else:
            target.assign(source)

    actual = [variable(images(*size)), *as_list(stage_features(variable)(images(*size)))]
    expected = [fixed(images(*size)), *as_list(stage_features(fixed)(images(*size)))]

    assert variable.output_shape == (None, 10)
    for a, b in zip(actual, expected, strict=True):
        assert_close(a, b, roundings=terms_along(fixed))


def resampled_embedding(embedding, base_grid, grid, num_tokens):
    embedding = np.asarray(embedding)
    if not num_tokens:
        return resampled(embedding, grid)
    channels = embedding.shape[-1]
    spatial = resampled(embedding[:, num_tokens:].reshape(1, *base_grid, channels), grid)
    return np.concatenate(
        [embedding[:, :num_tokens], np.reshape(spatial, (1, -1, channels))], axis=1
    )


def as_list(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


@pytest.mark.parametrize(
    ("name", "arguments", "jit_compile"),
    [
        pytest.param("pit_ti_distilled", {}, False, marks=SLOW),
        ("pit_ti_distilled", {"output_stride": 4}, False),
        ("vit_ti", {}, False),
        ("vit_ti", {"depth": 1}, True),
    ],
)
def test_one_graph_serves_every_size(name, arguments, jit_compile):
    assert_one_graph_serves_every_size(lambda model: model, name, arguments, jit_compile)


def test_one_graph_with_token_pooling_serves_every_size_with_xla():
    """Up to the first pooling: the same layers follow."""

    def beginning(model):
        return keras.Model(model.input, model.get_layer("pooling1").output)

    assert_one_graph_serves_every_size(beginning, "pit_ti_distilled", {}, jit_compile=True)


def assert_one_graph_serves_every_size(part, name, arguments, jit_compile):
    """`part` makes a model of what is run of the whole model."""
    variable = part(fixed_and_variable(name, **arguments)[1])
    signature = [tf.TensorSpec((None, *ANY))]

    @tf.function(input_signature=signature, jit_compile=jit_compile, autograph=False)
    def graph(batch):
        return variable(batch)

    for size in [(28, 20), (40, 33)]:
        roundings = terms_along(part(small(name, (*size, 3), **arguments)))
        assert_close(graph(images(*size)), variable(images(*size)), roundings=roundings)
    assert graph.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name", ["pit_ti_distilled", "vit_ti_distilled"])
def test_a_saved_model_of_any_size_loads(name, tmp_path):
    _, variable = fixed_and_variable(name)
    variable.save(tmp_path / "model.keras")

    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert loaded.input_shape == (None, *ANY)
    np.testing.assert_array_equal(loaded(images(24, 50)), variable(images(24, 50)))


def test_one_side_may_be_open():
    _, variable = fixed_and_variable("pit_ti")
    half_open = small("pit_ti", (None, 33, 3), base_size=(28, 20))
    half_open.set_weights(variable.get_weights())

    assert [m.shape[1:3] for m in stage_features(half_open).outputs] == [
        (None, 15),
        (None, 8),
        (None, 4),
    ]
    np.testing.assert_array_equal(half_open(images(40, 33)), variable(images(40, 33)))


def test_a_fixed_size_may_resample_the_embedding_of_another():
    _, variable = fixed_and_variable("vit_ti_distilled")
    fixed = small("vit_ti_distilled", (40, 33, 3), base_size=(28, 20))
    fixed.set_weights(variable.get_weights())

    assert fixed.get_layer("stage1").output[1].shape == (None, 10, 8, 24)
    np.testing.assert_array_equal(fixed(images(40, 33)), variable(images(40, 33)))


def test_every_weight_gets_a_gradient_at_another_size():
    _, variable = fixed_and_variable("pit_ti")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(variable(images(40, 33), training=True) ** 2)

    gradients = tape.gradient(loss, variable.trainable_variables)

    for weight, gradient in zip(variable.trainable_variables, gradients, strict=True):
        assert np.abs(gradient).max() > 0, weight.path


def test_mixed_precision_of_any_size():
    plain = small("pit_ti_distilled", ANY, base_size=(28, 20))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small("pit_ti_distilled", ANY, base_size=(28, 20))
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(plain.get_weights())

    logits, expected = model(images(40, 33)), plain(images(40, 33))

    assert logits.dtype == "float32"
    assert np.abs(logits - expected).max() > 0
    # One rounding an operation, as in test_models.py: three blocks of twelve, and eight more.
    assert_close(logits, expected, roundings=random_walk(3 * 12 + 8), dtype="bfloat16")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small("pit_ti", ANY)(images(3, 30)), "3 x 30 pixels is smaller than one patch"),
        (
            lambda: small("vit_ti", ANY, base_size=(28, 3)),
            "28 x 3 pixels is smaller than one patch",
        ),
        (lambda: small("pit_ti", (None, 2, 3)), "None x 2 pixels is smaller than one patch"),
    ],
)
def test_what_cannot_be_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
