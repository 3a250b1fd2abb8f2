import json
import time

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from calls_on_any_backend import IMAGES, LABELS, small_model
from tolerances import assert_close, terms_along
from whole_runs import eagerly

from pit_keras.measure.measuring import (
    LEARNING_RATE,
    inference_call,
    main,
    medians_in_turn,
    training_call,
)
from pit_keras.optimizers import AdamP

TASK = {
    "measures": ["throughput"],
    "image_size": [32, 32],
    "reference_size": [32, 32],
    "batch_size": 2,
    "precision": "float32",
    "repeats": 1,
}
# On 32 x 32 pixels there are 5 positions of 197.
VIT_TI = 5_717_416 - (197 - 5) * 192
# Eager calls: how they are compiled is tested elsewhere, and takes longest.
PROGRAM = """
import tensorflow as tf
from pit_keras.measure.measuring import main

tf.config.run_functions_eagerly(True)
main({task!r})
"""


@pytest.fixture
def policy():
    """Sets the dtype policy of what a test makes; the one before holds again after it."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def test_calls_are_made_in_turn_and_the_first_two_do_not_count(monkeypatch):
    now, order = 0.0, []
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def call(name, durations):
        durations = iter(durations)

        def of_some_seconds():
            nonlocal now
            order.append(name)
            now += next(durations)

        return of_some_seconds

    calls = [call("a", [90, 80, 1, 2, 6]), call("b", [70, 60, 30, 20, 10])]

    assert medians_in_turn(calls, repeats=3) == [2, 20]
    assert order == ["a", "b"] * 5


def test_cost_memory_and_speed_of_a_model():
    """In a process of its own, as memory that others have freed would not be counted."""
    task = TASK | {"model": "vit_ti", "measures": ["latency", "memory", "cost"]}

    ended = forked.run_code(PROGRAM.format(task=json.dumps(task)))

    assert ended.returncode == 0, ended.stderr
    machine, cost, memory, latency = map(json.loads, ended.stdout.splitlines())
    assert machine["machine"]["backend"] == keras.backend.backend()
    assert [each["measure"] for each in (cost, memory, latency)] == ["cost", "memory", "latency"]
    assert cost["columns"]["parameters"] == VIT_TI
    # Gradients and two moments in float32.
    weights_mib = 4 * VIT_TI / 2**20
    assert 3 * weights_mib < memory["columns"]["training_mib"] < 30 * weights_mib
    assert 0 <= memory["columns"]["inference_mib"] < memory["columns"]["training_mib"]
    assert latency["columns"].keys() == {"latency_ms", "latency_ratio"}
    assert min(latency["columns"].values()) > 0


def test_the_reference_is_measured_alone(policy, capsys):
    with eagerly():
        main(json.dumps(TASK | {"model": "pit_s", "precision": "mixed_bfloat16"}))
    _, throughput = map(json.loads, capsys.readouterr().out.splitlines())
    assert throughput["measure"] == "throughput"
    assert throughput["columns"]["throughput_ratio"] == 1
    assert throughput["columns"]["images_per_second"] > 0


def cross_entropy(logits):
    logits = np.asarray(logits, "float64")
    log_sums = np.log(np.exp(logits).sum(-1))
    return np.mean(log_sums - logits[np.arange(len(LABELS)), LABELS])


@pytest.mark.parametrize("name", ["pit_ti_distilled", "resnet50"])
def test_inference_gives_the_models_logits(name):
    model = small_model(name)
    logits = inference_call(model, IMAGES)()
    assert_close(logits, model(IMAGES, training=False), roundings=terms_along(model))


def test_a_training_step_is_adamps_on_the_cross_entropy(policy):
    # Only the logits are float32 then, and the sums over ten classes that the loss is made of.
    policy("float64")
    model, reference = small_model("resnet50"), small_model("resnet50")
    optimizer = AdamP(LEARNING_RATE, weight_decay=0.05)
    variables = reference.trainable_variables
    step = training_call(model, IMAGES, LABELS)

    for _ in range(2):
        with tf.GradientTape() as tape:
            logits = reference(IMAGES, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(LABELS, logits, from_logits=True)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, variables), variables)
        with eagerly():
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
