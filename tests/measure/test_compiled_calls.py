import keras
import numpy as np
import pytest
from calls_on_any_backend import IMAGES, LABELS, small_model

from pit_keras.measure.compiled_calls import LEARNING_RATE, inference_call, training_call
from pit_keras.training.optimizer import AdamP, weight_decay_exclusions


def cross_entropy(logits):
    logits = np.asarray(logits, "float64")
    log_sums = np.log(np.exp(logits).sum(-1))
    return np.mean(log_sums - logits[np.arange(len(LABELS)), LABELS])


@pytest.mark.parametrize("name", ["pit_ti_distilled", "resnet50"])
def test_inference_gives_the_models_logits(name):
    model = small_model(name)
    logits = inference_call(model, IMAGES)()
    np.testing.assert_allclose(logits, model(IMAGES, training=False), atol=1e-5)


def test_a_training_step_is_adamps_on_the_cross_entropy():
    import tensorflow as tf

    model, reference = small_model("resnet50"), small_model("resnet50")
    optimizer = AdamP(LEARNING_RATE, weight_decay=0.05)
    variables = reference.trainable_variables
    optimizer.exclude_from_weight_decay(var_list=weight_decay_exclusions(variables))
    step = training_call(model, IMAGES, LABELS)

    for _ in range(2):
        with tf.GradientTape() as tape:
            logits = reference(IMAGES, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(LABELS, logits, from_logits=True)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, variables), variables)
        assert step() == pytest.approx(cross_entropy(logits), rel=1e-5)

    # BatchNormalization's statistics have moved too.
    expected = np.asarray(reference(IMAGES))
    np.testing.assert_allclose(model(IMAGES), expected, atol=1e-4 * np.abs(expected).max())


def test_float16_learns_with_its_loss_scaled():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        step = training_call(small_model("vit_ti"), IMAGES, LABELS)
        losses = [step() for _ in range(12)]
    finally:
        keras.config.set_dtype_policy(before)
    assert losses[-1] < losses[0]


def test_a_backend_without_training_is_refused(monkeypatch):
    model = small_model("vit_ti")
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(ValueError, match="tensorflow, jax, torch, and Keras runs on 'openvino'"):
        inference_call(model, IMAGES)
