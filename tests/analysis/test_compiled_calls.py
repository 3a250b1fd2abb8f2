import keras
import numpy as np
import pytest
from calls_on_any_backend import IMAGES, LABELS, small_model

from pit_keras.analysis.compiled_calls import LEARNING_RATE, inference_call, training_call
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

    model, reference = small_model("pit_ti"), small_model("pit_ti")
    optimizer = AdamP(LEARNING_RATE, weight_decay=0.05)
    variables = reference.trainable_variables
    optimizer.exclude_from_weight_decay(var_list=weight_decay_exclusions(variables))
    step = training_call(model, IMAGES, LABELS)

    for _ in range(2):
        expected = cross_entropy(reference(IMAGES))
        with tf.GradientTape() as tape:
            losses = keras.losses.sparse_categorical_crossentropy(
                LABELS, reference(IMAGES, training=True), from_logits=True
            )
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, variables), variables)
        assert step() == pytest.approx(expected, rel=1e-5)

    logits = np.asarray(reference(IMAGES))
    np.testing.assert_allclose(model(IMAGES), logits, atol=1e-4 * np.abs(logits).max())


def test_batchnorms_statistics_move():
    model = small_model("resnet50")
    before = [np.array(variable) for variable in model.non_trainable_variables]
    training_call(model, IMAGES, LABELS)()
    after = model.non_trainable_variables
    assert all((np.array(b) != a).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_sixteen_bits_learn_too(precision):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
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
