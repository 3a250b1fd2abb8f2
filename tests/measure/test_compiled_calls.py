import keras
import numpy as np
import pytest
import tensorflow as tf
from calls_on_any_backend import IMAGES, LABELS, small_model
from tolerances import assert_close, terms_along

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
    assert_close(logits, model(IMAGES, training=False), roundings=terms_along(model))


@pytest.fixture
def policy():
    """Sets the dtype policy of what a test makes."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def test_a_training_step_is_adamps_on_the_cross_entropy(policy):
    # Only the logits are float32 then, and the sums over ten classes that the loss is made of.
    policy("float64")
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
        assert_close(step(), cross_entropy(logits), roundings=20)

    # BatchNormalization's statistics have moved too.
    assert_close(model(IMAGES), reference(IMAGES), roundings=20)


def test_float16_learns_with_its_loss_scaled(policy):
    policy("mixed_float16")
    model = small_model("vit_ti")
    step = training_call(model, IMAGES, LABELS)
    losses = [step() for _ in range(12)]
    assert losses[-1] < losses[0]
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
