import json
import time

import forked
import keras
import pytest
import tensorflow as tf

from pit_keras.measure.measuring import main, medians_in_turn

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
def eager_calls():
    policy = keras.config.dtype_policy()
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
    keras.config.set_dtype_policy(policy)


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


def test_the_reference_is_measured_alone(eager_calls, capsys):
    main(json.dumps(TASK | {"model": "pit_s", "precision": "mixed_bfloat16"}))
    _, throughput = map(json.loads, capsys.readouterr().out.splitlines())
    assert throughput["measure"] == "throughput"
    assert throughput["columns"]["throughput_ratio"] == 1
    assert throughput["columns"]["images_per_second"] > 0
