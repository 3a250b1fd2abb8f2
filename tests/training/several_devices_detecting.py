"""Measures steps of a detector on two devices, for `test_detection_steps.py`; prints JSON."""

import json

import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import detection_runs
import numpy as np
from whole_runs import eagerly

BATCH = 4
SIZES = ((32, 48), (48, 32), (48, 48))  # of the images of each step


def placed(strategy, number, size):
    """A batch on the replicas of a strategy."""
    data = detection_runs.batch(BATCH, seed=number, size=size)
    data = tf.data.Dataset.from_tensor_slices(data)
    data = data.batch(BATCH // strategy.num_replicas_in_sync, drop_remainder=True)
    return next(iter(strategy.distribute_datasets_from_function(lambda _: data)))


def measured_on(strategy):
    with strategy.scope():
        config, model = detection_runs.small(training__batch_size=BATCH)
    batches = [placed(strategy, number, size) for number, size in enumerate(SIZES)]
    return detection_runs.gradients_of_steps(config, model, strategy, batches)


def measured():
    with eagerly():
        one, _ = measured_on(tf.distribute.OneDeviceStrategy("CPU:0"))
    both, traces = measured_on(tf.distribute.MirroredStrategy())
    steps = [
        {
            "expected": expected,
            "metrics": metrics,
            "size": max(float(np.abs(a).max()) for a in theirs),
            "gap": max(float(np.abs(a - b).max()) for a, b in zip(theirs, ours, strict=True)),
        }
        for (expected, theirs), (metrics, ours) in zip(one, both, strict=True)
    ]
    return {"steps": steps, "traces": traces}


if __name__ == "__main__":
    print(json.dumps(measured()))
