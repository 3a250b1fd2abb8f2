"""One signed step, against its definition on a model whose gradient is known."""

import fractions
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from robustness_data import (
    DATA,
    MEAN,
    SIDE,
    STD,
    likely_labels,
    linear_logits,
    linear_model,
    pixel_source,
    random_pixels,
)
from tolerances import assert_close

from pit_keras import create_model
from pit_keras.config.fields import DataConfig
from pit_keras.evaluation.classification import Evaluator, evaluate_source
from pit_keras.evaluation.fgsm import fgsm_columns, fgsm_counts, fgsm_gradient, fgsm_images
from pit_keras.imagenet import IMAGENET_MEAN, IMAGENET_STD
from pit_keras.runs.trained_model import TrainedModel

NAMES = tuple("abcdefghij")
TINY = {"input_shape": (32, 32, 3), "classes": 10}
SMALL_STEPS = {"patch_size": 4, "stride": 4, "head_dim": 8, "depths": (1, 1, 1)}
# One of each family, the distilled too.
ZOO = {
    "pit_ti": SMALL_STEPS,
    "pit_ti_distilled": SMALL_STEPS,
    "vit_ti": {"patch_size": 8, "depth": 1},
    "resnet50_no_pooling": {"depths": (1, 1, 1, 1)},
}


# Terms of a logit of the linear model, of the softmax and of a pixel's gradient.
SUMMED = SIDE**2 * 3 + 10 + 10


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def attacked_by_hand(model, pixels, labels, epsilon):
    """Pixels in 0..1 after the attack, and the gradient, in float64 and step by step."""
    kernel = np.asarray(model.layers[-1].get_weights()[0], "float64")
    pixels = pixels / 255
    probabilities = softmax(linear_logits(model, (pixels - MEAN) / STD))
    errors = probabilities - np.eye(probabilities.shape[1])[labels]  # of the cross-entropy
    gradient = (errors @ kernel.T).reshape(pixels.shape) / STD
    attacked = pixels.copy()
    for place, slope in np.ndenumerate(gradient):
        step = epsilon if slope > 0 else -epsilon if slope < 0 else 0
        attacked[place] = min(max(pixels[place] + step, 0), 1)
    return attacked, gradient


@pytest.fixture(scope="module")
def linear():
    """A linear model, 45 images and labels, some of which it gets right."""
    model, pixels = linear_model(), random_pixels(45)
    return model, pixels, likely_labels(model, pixels)


def normalised(pixels):
    return tf.constant((pixels / 255 - MEAN) / STD, tf.float32)


def test_the_gradient_is_the_cross_entropys(linear):
    model, pixels, labels = linear
    gradient, logits = fgsm_gradient(model, normalised(pixels), tf.constant(labels))
    _, expected = attacked_by_hand(model, pixels, labels, 0.1)
    expected_logits = linear_logits(model, (pixels / 255 - MEAN) / STD)
    assert_close(logits, expected_logits, roundings=SUMMED)
    # A logit's error is one of the same share of the probabilities, and so of the gradient.
    scale = np.abs(expected_logits).max() * np.abs(expected).max()
    assert_close(gradient / STD, expected, roundings=SUMMED, scale=scale)


@pytest.mark.parametrize("epsilon", [8 / 255, 0.5])
def test_the_step_is_signed_and_ends_at_valid_pixels(linear, epsilon):
    model, pixels, labels = linear
    images = normalised(pixels)
    expected, gradient = attacked_by_hand(model, pixels, labels, epsilon)
    stepped = fgsm_images(images, tf.constant(gradient, tf.float32), epsilon, MEAN, STD)
    # The image, the step, their sum, the bounds and the two ways back to a pixel.
    assert_close(stepped * STD + MEAN, expected, roundings=6)
    assert expected.min() == 0  # some would have left the valid pixels
    assert expected.max() == 1


def test_where_the_gradient_is_zero_nothing_changes():
    images = normalised(random_pixels(2))
    stepped = fgsm_images(images, tf.zeros_like(images), 8 / 255, MEAN, STD)
    np.testing.assert_array_equal(stepped, images)


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 8, 45])
def test_accuracies_are_those_of_the_definition_whatever_the_batches(linear, batch_size):
    model, pixels, labels = linear
    columns = fgsm_columns(tuple(map(fractions.Fraction, ("8/255", "4/255", "0.003"))))
    expected = {}
    for column, epsilon in columns.items():
        attacked, _ = attacked_by_hand(model, pixels, labels, float(epsilon))
        logits = linear_logits(model, (attacked - MEAN) / STD)
        own = np.log(softmax(logits))[np.arange(len(labels)), labels]
        expected[column] = (logits.argmax(axis=1) == labels).mean()
        error = SUMMED * np.finfo("float32").eps * np.abs(logits).max()
        expected[f"loss_{column}"] = pytest.approx(-own.mean(), rel=0, abs=error)
    assert 0 <= expected["fgsm"] < expected["fgsm_4/255"] < expected["fgsm_0.003"] < 1

    measured = evaluate_source(
        TrainedModel(model, NAMES, DATA),
        pixel_source(pixels, labels, NAMES),
        batch_size=batch_size,
        progress=False,
        counts=fgsm_counts(columns, DATA),
    )

    assert {name: measured[name] for name in expected} == expected
    assert measured["images"] == 45
    assert measured["loss"] < measured["loss_fgsm_0.003"] < measured["loss_fgsm"]


@pytest.mark.parametrize(
    "name",
    [
        *("pit_ti_distilled", "vit_ti", "resnet50_no_pooling"),
        pytest.param("pit_ti", marks=pytest.mark.slow),
    ],
)
def test_the_attack_raises_the_loss_of_every_family(name):
    keras.utils.set_random_seed(1)
    model = create_model(name, **{**TINY, **ZOO[name]})
    size = model.input_shape[1:3]
    images = np.random.default_rng(5).random((4, *size, 3))
    batch = {
        "image": tf.constant((images - IMAGENET_MEAN) / IMAGENET_STD, tf.float32),
        "label": tf.constant([1, 2, 3, 4], tf.int64),
        "weight": tf.ones(4),
    }
    counts = fgsm_counts(fgsm_columns(), DataConfig(image_size=size))
    measured = Evaluator(model, counts=counts)([batch])
    assert measured["loss_fgsm"] > measured["loss"]
    assert math.isfinite(measured["loss_fgsm"])


def test_a_distilled_model_is_attacked_through_the_mean_of_its_heads():
    keras.utils.set_random_seed(2)
    model = create_model("pit_ti_distilled", **TINY, **SMALL_STEPS)
    for head in ("head", "head_dist"):
        layer = model.get_layer(head)
        layer.set_weights([10 * weight for weight in layer.get_weights()])
    heads = keras.Model(
        model.input, [model.get_layer(name).output for name in ("head", "head_dist")]
    )
    images = tf.constant(np.random.default_rng(6).normal(size=(3, 32, 32, 3)), tf.float32)
    labels = tf.constant([0, 1, 2], tf.int64)
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = sum(heads(images, training=False)) / 2
        loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    expected = tape.gradient(loss, images)
    gradient, _ = fgsm_gradient(model, images, labels)
    # The same network; only the last step is written in another way.
    summed = sum(np.prod(w.shape[:-1]) for w in model.weights if len(w.shape) > 1)
    assert_close(gradient, expected, roundings=summed)


def test_each_epsilon_costs_one_forward_pass_and_the_gradient_one(linear):
    model, pixels, labels = linear
    passes = []

    def counted(images, training):
        passes.append(training)
        return model(images, training=training)

    batch = {
        "image": normalised(pixels),
        "label": tf.constant(labels, tf.int64),
        "weight": tf.ones(len(labels)),
    }
    columns = fgsm_columns(tuple(map(fractions.Fraction, ("8/255", "4/255", "1/255"))))
    fgsm_counts(columns, DATA)(counted, batch)
    assert passes == [False] * 4


def test_columns_tell_the_epsilons_apart():
    epsilons = tuple(map(fractions.Fraction, ("8/255", "3/255", "0.1", "1")))
    assert list(fgsm_columns(epsilons)) == ["fgsm", "fgsm_3/255", "fgsm_0.1", "fgsm_255/255"]
    assert fgsm_columns() == {"fgsm": fractions.Fraction(8, 255)}
