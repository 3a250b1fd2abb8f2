"""Runs the calls that a benchmark times on whatever backend Keras has, and prints their numbers.

KERAS_BACKEND=jax python tests/measure/calls_on_any_backend.py
"""

import json
import zlib

import keras
import numpy as np

import pit_keras
from pit_keras.measure.measuring import inference_call, training_call

OVERRIDES = {
    "pit_ti": {"patch_size": 4, "stride": 4, "head_dim": 8, "depths": (1, 1, 1)},
    "vit_ti": {"patch_size": 8, "stride": 8, "head_dim": 8, "depth": 1},
    "resnet50": {"base_width": 4, "depths": (1, 1, 1, 1)},
}
IMAGES = np.random.default_rng(7).normal(size=(3, 32, 32, 3)).astype("float32")
LABELS = np.array([3, 8, 3])


def small_model(name):
    """A small network of the global dtype policy whose weights depend on their paths alone."""
    overrides = OVERRIDES[name.removesuffix("_distilled")]
    model = pit_keras.create_model(name, classes=10, input_shape=(32, 32, 3), **overrides)
    for variable in model.trainable_variables:
        generator = np.random.default_rng(zlib.crc32(variable.path.encode()))
        shape = tuple(variable.shape)
        noise = generator.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]) or 1)
        variable.assign(1 + 0.1 * noise if variable.name == "gamma" else noise)
    return model


def numbers():
    """Logits, and the losses of three training steps."""
    found = {}
    for name in ("pit_ti_distilled", "resnet50"):
        logits = keras.ops.convert_to_numpy(inference_call(small_model(name), IMAGES)())
        step = training_call(small_model(name), IMAGES, LABELS)
        found[name] = [*logits.ravel().tolist(), *(step() for _ in range(3))]
    return found


if __name__ == "__main__":
    print(json.dumps(numbers()))
