"""Steps on several devices against the same on one, measured by `several_devices.py`."""

import json
import pathlib

import forked
import pytest


def measured_on(devices):
    """What the script measured, in a process of its own for its devices."""
    script = pathlib.Path(__file__).parent / "several_devices.py"
    process = forked.run_script(script, devices)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["replicas"] == devices
    return found


@pytest.fixture(scope="module")
def on_two_devices():
    return measured_on(2)


def assert_alike(found, arrays):
    assert len(found["gaps"]) == arrays
    # In float64 the replicas' sums are rounded to 1e-16, and twenty steps make 1e-13 of that.
    assert max(found["gaps"]) < 1e-9 * max(found["sizes"])
    assert found["metrics"] == pytest.approx(found["expected"], rel=1e-9)


def test_two_replicas_do_what_one_does_over_twenty_steps(on_two_devices):
    assert_alike(on_two_devices["training"], arrays=2 * 8)  # the weights and their averages


@pytest.mark.slow
def test_four_replicas_do_what_one_does_over_twenty_steps():
    assert_alike(measured_on(4)["training"], arrays=2 * 8)


def test_two_replicas_have_the_gradients_of_one_compiled_and_from_parts_of_a_batch(on_two_devices):
    assert_alike(on_two_devices["gradients"], arrays=8)


def test_replicas_drop_differently(on_two_devices):
    first, second = on_two_devices["losses_of_equal_halves"]
    assert first != pytest.approx(second, rel=1e-4)


def test_an_overflow_on_one_replica_skips_the_update_on_both(on_two_devices):
    assert on_two_devices["overflow"] == {"skipped": 1.0, "scale": 0.5, "moved": False}


def test_statistics_are_the_means_over_the_replicas(on_two_devices):
    found = on_two_devices["statistics"]
    assert len(found["gaps"]) == 2
    assert max(found["gaps"]) < 1e-9
    assert found["same_on_both"]
