"""The same numbers on every backend; collected where one besides TensorFlow is installed."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from any_backend import (
    DETECTOR,
    NETWORKS,
    OTHER_SIZE,
    detector_numbers,
    distilled_numbers,
    numbers,
)
from tolerances import assert_close, terms_along

import pit_keras

SCRIPT = pathlib.Path(__file__).with_name("any_backend.py")
BACKENDS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]


def roundings_of(network):
    """There, back by the gradient, and there again, on the larger of both sizes."""
    name, fields = ("detr_pit_s", DETECTOR) if network == "detr" else (network, NETWORKS[network])
    model = pit_keras.create_model(name, input_shape=(*OTHER_SIZE, 3), **fields)
    return 3 * terms_along(model, batch=2)


@pytest.fixture(scope="module")
def tensorflow_numbers():
    results = {**detector_numbers(), **distilled_numbers()}
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
    roundings = {network: roundings_of(network) for network in (*NETWORKS, "detr")}
    roundings["distilled"] = 3 * roundings["pit_ti_distilled"]  # three steps
    for key, expected in tensorflow_numbers.items():
        assert_close(actual[key], expected, roundings=roundings[key.split("/")[0]])


def test_a_step_changes_the_logits(tensorflow_numbers):
    for network in NETWORKS:
        before = tensorflow_numbers[f"{network}/logits0 at 28x20"]
        after = tensorflow_numbers[f"{network}/logits after a step"]
        assert np.abs(after - before).max() > 0.01 * np.abs(before).max()
