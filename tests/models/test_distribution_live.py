"""Keras' distributions over several devices; collected where JAX, which they need, is installed."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from tolerances import assert_close, terms_along

import pit_keras

SCRIPT = pathlib.Path(__file__).with_name("on_four_devices.py")
# Compiling is most of the time.
FLAGS = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    path = tmp_path_factory.mktemp("devices") / "numbers.npz"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": FLAGS}
    subprocess.run([sys.executable, SCRIPT, path], env=environment, check=True)
    return np.load(path)


@pytest.mark.parametrize(("distribution", "devices", "parts"), [("data", 4, 1), ("model", 4, 2)])
def test_training_on_four_devices_is_that_on_one(numbers, distribution, devices, parts):
    assert tuple(numbers["one/parts"]) == (1, 1)
    assert tuple(numbers[f"{distribution}/parts"]) == (devices, parts)
    sizes = {"patch_size": 4, "stride": 2, "head_dim": 8, "depths": (1, 1, 1)}
    model = pit_keras.create_model("pit_ti", input_shape=(32, 32, 3), **sizes)
    roundings = 4 * terms_along(model)  # there and back, twice
    assert_close(numbers[distribution], numbers["one"], roundings=roundings)
