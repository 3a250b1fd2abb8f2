"""Measures steps of a detector on two devices, for `test_detection_task.py`; prints JSON."""

import json

import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import detection_runs
import keras

from pit_keras.training.assembly import model_of
from pit_keras.training.detection_task import DetectionLoss
from pit_keras.training.step import compiled_step

BATCH = 4
SIZES = ((32, 48), (48, 32), (48, 48))  # of the images of each step


class Classes:
    class_names = ("red", "green", "blue")


def trained(strategy):
    """(metrics of each step, weights, traces) of a few steps of plain gradient descent."""
    config = detection_runs.make_config(training__batch_size=BATCH, model__dropout=0.0)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = model_of(config, Classes)
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(model.trainable_variables)
        loss = DetectionLoss(config, model)
    config.optimizer.clip_norm = None
    step = compiled_step(config, model, loss, optimizer, strategy, jit=False)
    share, metrics = BATCH // strategy.num_replicas_in_sync, []
    for number, size in enumerate(SIZES):
        data = detection_runs.batch(BATCH, seed=number, size=size)
        data = tf.data.Dataset.from_tensor_slices(data)
        data = data.batch(share, drop_remainder=True)
        batch = next(iter(strategy.distribute_datasets_from_function(lambda _, d=data: d)))
        found = step(batch, tf.constant(number, tf.int64), tf.zeros(2))
        metrics.append({name: float(v) for name, v in found.items() if name != "requests"})
    traces = step.experimental_get_tracing_count()
    return metrics, [variable.numpy() for variable in model.weights], traces


def measured():
    expected, ours, one = trained(tf.distribute.OneDeviceStrategy("CPU:0"))
    metrics, theirs, both = trained(tf.distribute.MirroredStrategy())
    gap = max(float(abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
    return {"expected": expected, "metrics": metrics, "gap": gap, "traces": [one, both]}


if __name__ == "__main__":
    print(json.dumps(measured()))
