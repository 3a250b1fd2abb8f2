"""The same numbers on every backend; collected where one besides TensorFlow is installed."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from calls_on_any_backend import numbers

SCRIPT = pathlib.Path(__file__).with_name("calls_on_any_backend.py")
BACKENDS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]


@pytest.fixture(scope="module")
def tensorflow_numbers():
    return numbers()


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_and_losses_agree(backend, tensorflow_numbers):
    process = subprocess.run(
        [sys.executable, SCRIPT],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
        capture_output=True,
        text=True,
    )
    actual = json.loads(process.stdout.splitlines()[-1])
    assert actual.keys() == tensorflow_numbers.keys()
    for name, expected in tensorflow_numbers.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(actual[name], expected, atol=1e-4 * scale, err_msg=name)
