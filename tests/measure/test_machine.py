import os

import keras
import numpy as np
import pytest

from pit_keras.measure.machine import description, memory_in_use, peak_memory

MIB = 2**20


def test_the_description_names_what_a_measurement_depends_on():
    found = description()
    assert found["backend"] == keras.backend.backend()
    assert found["device"]
    assert 1 <= found["threads"] <= os.cpu_count()
    assert f"keras {keras.__version__} tensorflow 2." in found["versions"]


def test_a_backend_without_training_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(KeyError, match="openvino"):
        description()


def test_the_peak_is_that_of_the_second_call_alone():
    sizes = iter((400, 200))

    def allocate():
        np.ones(next(sizes) * MIB, np.uint8)

    before = memory_in_use()
    peak = peak_memory(allocate) - before
    assert 195 * MIB < peak < 300 * MIB
    assert memory_in_use() - before < 100 * MIB
