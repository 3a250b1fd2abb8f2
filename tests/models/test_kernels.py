"""Each form of a kernel against the formula in float64."""

import numpy as np
import pytest
import tensorflow as tf
from keras.layers import Dropout
from tolerances import assert_close, terms_along

import pit_keras
from pit_keras.models import kernels, recomputing_blocks

SHAPE = (3, 2, 13, 5)  # images, heads, tokens, size
TERMS = 13 + 13 + 5  # of the softmax and of both products


def reference(query, key, value, padding=None):
    """Attention as its formula says, in float64: (B, M, heads, size)."""
    logits = query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])
    if padding is not None:
        logits = np.where(padding[:, None, None], -np.inf, logits)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ value).transpose(0, 2, 1, 3)


@pytest.fixture
def by_image(monkeypatch):
    """Training takes attention image by image, however small the images are."""
    monkeypatch.setattr(kernels, "_LARGE", 0)


def in_a_graph(function):
    """As the trainer and `fit` call it: the number of images is not known."""
    return tf.function(function, reduce_retracing=True, autograph=False)


def parts(dtype):
    drawn = np.random.default_rng(0).normal(size=(4, *SHAPE))
    return [tf.cast(part, dtype) for part in drawn]


def exactly(tensors):
    return [tf.cast(tensor, "float64").numpy() for tensor in tensors]


@pytest.mark.usefixtures("by_image")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("training", [False, True])
def test_attention(training, dtype):
    *inputs, _ = parts(dtype)
    function = in_a_graph(lambda *x: kernels.attend(*x, training=training))
    operations = function.get_concrete_function(*inputs).graph.get_operations()
    assert any(op.type.endswith("While") for op in operations) == training
    actual = function(*inputs)
    assert actual.dtype == dtype
    expected = reference(*exactly(inputs))
    assert_close(tf.cast(actual, "float64"), expected, roundings=TERMS, scale=4, dtype=dtype)


@pytest.mark.usefixtures("by_image")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_gradient_of_attention_by_images(dtype):
    """Against that of the plain form, whose inputs are exact."""
    *inputs, upstream = parts(dtype)

    def gradients(inputs, upstream, training):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = kernels.attend(*inputs, training=training)
        return tape.gradient(outputs, inputs, tf.transpose(upstream, (0, 2, 1, 3)))

    actual = in_a_graph(gradients)(inputs, upstream, True)
    double = [tf.cast(part, "float64") for part in (*inputs, upstream)]
    expected = gradients(double[:3], double[3], False)
    for one, other in zip(exactly(actual), exactly(expected), strict=True):
        # There and back again; upstream, values and weights by queries or keys have sizes to 4.
        assert_close(one, other, roundings=3 * TERMS, scale=16, dtype=dtype)


def test_weights_are_dropped_in_training_alone():
    *inputs, _ = parts("float32")
    whole, trained, used = (
        kernels.attend(*inputs, dropout=dropout, training=training).numpy()
        for dropout, training in ((None, True), (Dropout(0.5, seed=0), True), (Dropout(0.5), False))
    )
    np.testing.assert_array_equal(used, whole)
    assert (trained != whole).mean() > 0.9


def test_padded_keys_get_no_weight():
    *inputs, _ = parts("float32")
    padding = np.zeros((SHAPE[0], SHAPE[2]), bool)
    padding[1, 7:] = padding[2, :1] = True
    actual = kernels.attend(*inputs, padding=padding, training=True)
    assert_close(actual, reference(*exactly(inputs), padding), roundings=TERMS, scale=4)


def test_only_what_leaves_the_cache_goes_by_image():
    def is_large(tokens, jit=False):
        found = []
        query = tf.zeros((1, 3, tokens, 2))
        tf.function(lambda x: found.append(kernels._leaves_the_cache(x, x)), jit_compile=jit)(query)
        return found[0]

    assert is_large(730)  # PiT's first stage
    assert not is_large(197)  # its second; ViT
    assert not is_large(730, jit=True)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_network_trains_by_images_as_it_does_by_batches(recompute, monkeypatch):
    sizes = {"patch_size": 4, "stride": 4, "head_dim": 4, "depth": 2}
    model = pit_keras.create_model("vit_ti", classes=5, input_shape=(16, 16, 3), **sizes)
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype("float32")

    def gradients(images):
        with recomputing_blocks(recompute), tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    expected = in_a_graph(gradients)(images)
    monkeypatch.setattr(kernels, "_LARGE", 0)
    for one, other in zip(in_a_graph(gradients)(images), expected, strict=True):
        assert np.abs(other).max() > 0
        assert_close(one, other, roundings=2 * terms_along(model))
