"""The same numbers on every backend; collected where one besides TensorFlow is installed."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from any_backend import NETWORKS, detector_numbers, numbers

SCRIPT = pathlib.Path(__file__).with_name("any_backend.py")
BACKENDS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
TOLERANCE = 1e-4  # of the largest value


@pytest.fixture(scope="module")
def tensorflow_numbers():
    results = detector_numbers()
    for network in NETWORKS:
        results |= numbers(network)
    return results


@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_features_attention_and_a_step_agree(backend, tensorflow_numbers, tmp_path):
    path = tmp_path / "numbers.npz"
    subprocess.run(
        [sys.executable, SCRIPT, path],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
        capture_output=True,
    )

    with np.load(path) as file:
        actual = dict(file)

    assert actual.keys() == tensorflow_numbers.keys()
    for key, expected in tensorflow_numbers.items():
        assert actual[key].shape == expected.shape, key
        error = np.abs(actual[key] - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE, (key, error)


def test_a_step_changes_the_logits(tensorflow_numbers):
    for network in NETWORKS:
        before = tensorflow_numbers[f"{network}/logits0 at 28x20"]
        after = tensorflow_numbers[f"{network}/logits after a step"]
        assert np.abs(after - before).max() > 100 * TOLERANCE * np.abs(before).max()
