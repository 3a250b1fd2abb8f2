"""The same numbers on every backend; collected where one besides TensorFlow is installed."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest
from calls_on_any_backend import numbers, small_model
from tolerances import assert_close, terms_along

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
        # Three steps go through the network forwards and backwards. AdamP moves a weight by about
        # the learning rate even where rounding alone decides the sign of its gradient, but such a
        # weight has next to no influence on the loss.
        assert_close(actual[name], expected, roundings=6 * terms_along(small_model(name)))
