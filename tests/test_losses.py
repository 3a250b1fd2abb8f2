"""Losses against their definitions, written out in NumPy and float64."""

import numpy as np
import pytest
import tensorflow as tf
from tolerances import assert_close

from pit_keras.losses import (
    hard_distillation,
    soft_cross_entropy,
    soft_distillation,
)

# Sums over ten classes for the softmax and for the loss, and a product, a difference, an
# exponential, a logarithm and a smoothing.
ROUNDINGS = 2 * 10 + 5


def reference(targets, logits, label_smoothing=0.0):
    targets, logits = np.asarray(targets, "float64"), np.asarray(logits, "float64")
    targets = (1 - label_smoothing) * targets + label_smoothing / targets.shape[1]
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return (targets * (log_sum - shifted)).sum(axis=1)


@pytest.fixture
def batch():
    """Targets (6, 10), mixtures of two classes as CutMix makes them, and logits (6, 10)."""
    rng = np.random.default_rng(0)
    one_hot = np.eye(10)[rng.integers(10, size=(2, 6))]
    share = rng.uniform(size=(6, 1))
    return share * one_hot[0] + (1 - share) * one_hot[1], 3 * rng.normal(size=(6, 10))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_matches_the_definition(batch, label_smoothing):
    targets, logits = batch
    loss = soft_cross_entropy(
        tf.constant(targets, "float32"), tf.constant(logits, "float32"), label_smoothing
    )
    assert loss.shape == (6,)
    assert loss.dtype == tf.float32
    assert_close(loss, reference(targets, logits, label_smoothing), roundings=ROUNDINGS)
    exact = soft_cross_entropy(tf.constant(targets), tf.constant(logits), label_smoothing)
    assert exact.dtype == tf.float64
    np.testing.assert_allclose(exact, reference(targets, logits, label_smoothing), rtol=1e-12)


def test_smoothing_of_a_uniform_prediction_changes_nothing():
    targets, logits = tf.eye(4), tf.zeros((4, 4))
    for label_smoothing in (0.0, 0.1, 0.9):
        loss = soft_cross_entropy(targets, logits, label_smoothing)
        assert_close(loss, np.full(4, np.log(4)), roundings=ROUNDINGS)


def test_label_smoothing_gives_its_share_to_all_classes():
    """-log p is 0 for the true class and 100 for the nine others: 0.1 * 9/10 * 100 remains."""
    targets, logits = tf.one_hot([3], 10), tf.one_hot([3], 10, on_value=0.0, off_value=-100.0)
    assert_close(soft_cross_entropy(targets, logits, 0.1), [9.0], roundings=ROUNDINGS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(batch, dtype):
    targets, logits = tf.cast(batch[0], "float32"), tf.cast(batch[1], dtype)
    loss = soft_cross_entropy(targets, logits)
    assert loss.dtype == tf.float32
    exact = reference(targets, tf.cast(logits, "float64"))
    assert_close(loss, exact, roundings=ROUNDINGS)  # half precision would be off by 1e-3


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_logits_have_finite_losses_and_gradients(size):
    logits = tf.constant([[size, -size, 0.0], [-size, size, size]])
    targets = tf.constant([[0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = soft_cross_entropy(targets, logits, label_smoothing=0.1)
    assert_close(loss, reference(targets, logits, 0.1), roundings=ROUNDINGS)
    smoothed = 0.9 * targets + 0.1 / 3
    expected = tf.constant([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]) - smoothed
    assert_close(tape.gradient(loss, logits), expected, roundings=ROUNDINGS)


def test_targets_of_zero_have_no_gradient():
    """A row of padding must not pull at the weights, whatever its logits."""
    logits = tf.constant([[1.0, 2.0, 3.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = soft_cross_entropy(tf.zeros((1, 3)), logits)
    np.testing.assert_array_equal(loss, [0.0])
    np.testing.assert_array_equal(tape.gradient(loss, logits), np.zeros((1, 3)))


def test_runs_with_an_unknown_batch_size(batch):
    targets, logits = (tf.constant(x, "float32") for x in batch)
    signature = [tf.TensorSpec((None, 10)), tf.TensorSpec((None, 10))]
    compiled = tf.function(
        soft_cross_entropy, input_signature=signature, jit_compile=True, autograph=False
    )
    assert_close(compiled(targets, logits), reference(*batch), roundings=ROUNDINGS)


def log_softmax(logits):
    shifted = np.asarray(logits, "float64")
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.fixture
def teacher_logits():
    return 3 * np.random.default_rng(1).normal(size=(6, 10))


def test_hard_distillation_is_the_cross_entropy_of_the_teachers_class(batch, teacher_logits):
    _, logits = batch

    losses = hard_distillation(tf.constant(teacher_logits), tf.constant(logits))

    expected = -log_softmax(logits)[np.arange(6), teacher_logits.argmax(axis=1)]
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    halves = hard_distillation(tf.constant(teacher_logits), tf.constant(logits, "bfloat16"))
    assert halves.dtype == tf.float32


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_soft_distillation_is_the_divergence_of_each_example(batch, teacher_logits, tau):
    _, logits = batch

    losses = soft_distillation(tf.constant(teacher_logits), tf.constant(logits), tau)

    teacher, student = log_softmax(teacher_logits / tau), log_softmax(logits / tau)
    expected = tau**2 * (np.exp(teacher) * (teacher - student)).sum(axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    np.testing.assert_allclose(soft_distillation(logits, logits, tau), 0, atol=1e-12)
    halves = tf.constant(logits, "bfloat16")
    assert soft_distillation(halves, halves, tau).dtype == tf.float32
