"""Runs small networks on whatever backend Keras has and writes their numbers to a file.

KERAS_BACKEND=jax python tests/models/any_backend.py numbers.npz
"""

import sys
import zlib

import keras
import numpy as np

import pit_keras
from pit_keras.analysis.interaction import interaction_model
from pit_keras.models.layers import TransformerBlock
from pit_keras.training.optimizer import AdamP

# A network and the overrides that make it small; one line each.
NETWORKS = {
    "pit_ti_distilled": {"patch_size": 4, "stride": 2, "head_dim": 8, "depths": (1, 1, 1)},
    "vit_ti": {"patch_size": 4, "stride": 4, "head_dim": 8, "depth": 2},
    "resnet50": {"base_width": 4, "depths": (1, 1, 1, 1)},
    "regnety_160": {"stage_widths": (8, 16, 16, 24), "depths": (1, 1, 1, 1), "group_width": 8},
}
TRAINING_SIZE, OTHER_SIZE = (28, 20), (33, 40)


def numbers(name):
    """Everything that the backends have to agree on, as a dictionary of arrays."""
    model = pit_keras.create_model(name, classes=10, input_shape=(None, None, 3), **NETWORKS[name])
    for variable in model.weights:
        variable.assign(fixed_value(variable))
    readers = {
        "logits": model,
        "features": pit_keras.stage_features(model),
        "pre_logits": pit_keras.pre_logits(model),
    }
    if any(isinstance(layer, TransformerBlock) for layer in model.layers):
        readers["attention"] = pit_keras.attention_maps(model)
        readers["interaction"] = interaction_model(model)
    arrays = {}
    for size in (TRAINING_SIZE, OTHER_SIZE):
        for reader, reads in readers.items():
            for index, output in enumerate(as_list(reads(fixed_images(size)))):
                key = f"{name}/{reader}{index} at {size[0]}x{size[1]}"
                arrays[key] = keras.ops.convert_to_numpy(output)
    arrays[f"{name}/loss"] = np.array(step(model))
    arrays[f"{name}/logits after a step"] = keras.ops.convert_to_numpy(
        model(fixed_images(TRAINING_SIZE))
    )
    return arrays


def as_list(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


def step(model):
    """A gradient step; returns the loss before it."""
    # Adam's first step is little more than the gradient's sign, which rounding decides where the
    # gradient is nearly zero; a large epsilon keeps the step continuous there.
    model.compile(
        AdamP(learning_rate=1e-3, weight_decay=0.05, epsilon=1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",
        # One step is over before TensorFlow has traced its graph.
        run_eagerly=keras.backend.backend() == "tensorflow",
    )
    return model.train_on_batch(fixed_images(TRAINING_SIZE), np.array([3, 8]))


def fixed_value(variable):
    """A value that depends on the variable's path and shape only; variances are positive."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(variable.path.encode())))
    value = generator.standard_normal(tuple(variable.shape)).astype("float32")
    if variable.name in ("gamma", "moving_variance"):
        return 1 + 0.2 * np.abs(value)
    if value.ndim == 1:
        return 0.2 * value
    return value / np.sqrt(np.prod(value.shape[:-1]))


def fixed_images(size):
    return np.random.default_rng(7).normal(size=(2, *size, 3)).astype("float32")


if __name__ == "__main__":
    results = {}
    for network in NETWORKS:
        results |= numbers(network)
    np.savez(sys.argv[1], **results)
