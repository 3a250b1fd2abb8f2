"""Trains a small model on four devices of JAX under both of Keras' distributions, and on one.

KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=4 \
    python tests/models/on_four_devices.py numbers.npz
"""

import sys

import keras
import numpy as np

import pit_keras

IMAGES = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")
SIZES = {"patch_size": 4, "stride": 2, "head_dim": 8, "depths": (1, 1, 1)}


def trained(distribution):
    """A kernel after two steps, how many devices hold it, and in how many parts."""
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(0)
    model = pit_keras.create_model("pit_ti", classes=5, input_shape=(32, 32, 3), **SIZES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    model.fit(IMAGES, np.arange(8) % 5, batch_size=8, epochs=2, verbose=0)
    kernel = model.get_layer("stage1_block1").mlp.expand.kernel.value
    parts = {str(shard.index) for shard in kernel.addressable_shards}
    return np.array(kernel), (len(kernel.devices()), len(parts))


def distributions():
    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*mlp/expand/kernel"] = (None, "model")
    layout[".*mlp/reduce/kernel"] = ("model", None)
    return {
        "one": None,
        "data": keras.distribution.DataParallel(devices=devices),
        "model": keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch"),
    }


if __name__ == "__main__":
    results = {}
    for name, distribution in distributions().items():
        results[name], results[f"{name}/parts"] = trained(distribution)
    np.savez(sys.argv[1], **results)
