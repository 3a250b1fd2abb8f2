import json
import time

import keras
import pytest

from pit_keras.measure.measuring import main, medians_in_turn

TASK = {
    "model": "pit_ti",
    "measures": [],
    "image_size": [32, 32],
    "reference_size": [32, 32],
    "batch_size": 2,
    "precision": "float32",
    "repeats": 1,
}


@pytest.fixture
def answers(capsys):
    """A function that runs the program and returns what it printed, with its exit status."""
    policy = keras.config.dtype_policy()

    def run(**changes):
        status = 0
        try:
            main(json.dumps(TASK | changes))
        except SystemExit as end:
            status = end.code
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()], status

    yield run
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


def test_cost_and_speed_of_a_model(answers):
    found, status = answers(measures=["latency", "cost"])

    machine, cost, latency = found
    assert status == 0
    assert machine["machine"]["backend"] == keras.backend.backend()
    # A patch of 16 every 8 pixels of 32 leaves 3 x 3 positions of 27 x 27.
    assert cost["columns"]["parameters"] == 4_847_272 - (27 * 27 - 3 * 3) * 64
    assert [cost["measure"], latency["measure"]] == ["cost", "latency"]
    assert latency["columns"].keys() == {"latency_ms", "latency_ratio"}
    assert min(latency["columns"].values()) > 0


def test_the_reference_is_measured_alone(answers):
    found, _ = answers(model="pit_s", measures=["throughput"], precision="mixed_bfloat16")
    assert found[1]["columns"]["throughput_ratio"] == 1
    assert found[1]["columns"]["images_per_second"] > 0


def test_an_error_is_told_after_what_was_measured(answers):
    found, status = answers(measures=["cost", "throughput"], batch_size=10**9)
    assert status == 1
    assert found[1]["measure"] == "cost"
    assert found[2].keys() == {"problem"}
    assert "Unable to allocate" in found[2]["problem"]
