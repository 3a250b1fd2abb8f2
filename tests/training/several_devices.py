"""Measures training steps on several logical devices, for `test_replicas.py`; prints JSON.

    python several_devices.py DEVICES

A process has one mirrored strategy: the collective operations of two would be taken for each
other's.
"""

import json
import sys

import tensorflow as tf

DEVICES = int(sys.argv[1])

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * DEVICES)

import numpy as np
import steps

from pit_keras.config.fields import Config
from pit_keras.optimizers import AdamP
from pit_keras.schedules import scaled_learning_rate
from pit_keras.training.averaging import WeightAverage

BATCH, STEPS = 8, 20
ONE = tf.distribute.OneDeviceStrategy("CPU:0")
MIRRORED = tf.distribute.MirroredStrategy()


def config_for(**values):
    config = Config()
    config.training.batch_size, config.optimizer.clip_norm = BATCH, 0.5
    for name, value in values.items():
        setattr(config.training, name, value)
    return config


def on_replicas(strategy, batches):
    """Global batches, {name: (steps, B, ...)}, on the replicas of a strategy."""
    data = tf.data.Dataset.from_tensor_slices(batches).unbatch()
    data = data.batch(BATCH // strategy.num_replicas_in_sync, drop_remainder=True)
    return strategy.distribute_datasets_from_function(lambda _: data)


def one_batch(strategy, batch):
    (placed,) = on_replicas(strategy, {name: values[None] for name, values in batch.items()})
    return placed


def trained(strategy):
    """(metrics of the last step, weights and averages) after twenty steps in float64, with a
    teacher, clipping and averages."""
    config = config_for()
    config.distillation.kind = "hard"
    with strategy.scope():
        model = steps.float64_network()
        optimizer = AdamP(scaled_learning_rate(5e-4, BATCH), weight_decay=0.05)
        optimizer.build(model.trainable_variables)
        average = WeightAverage(model, 0.9)
    step = steps.step_of(
        config, model, optimizer, strategy, steps.teacher, jit=False, average=average
    )
    batches = [steps.batch("float64", BATCH, seed) for seed in range(STEPS)]
    batches = tf.nest.map_structure(lambda *values: tf.stack(values), *batches)
    for number, batch in enumerate(on_replicas(strategy, batches)):
        metrics = step(*steps.inputs(number, batch))
    return metrics, [variable.numpy() for variable in [*model.weights, *average.variables]]


def gradients(strategy):
    """(metrics, gradients) of one compiled step in float64, from two parts of a batch."""
    config = config_for(batch_size=BATCH // 2, accumulate=2)
    config.optimizer.clip_norm = None
    with strategy.scope():
        model = steps.float64_network()
        optimizer = steps.descent(model)
    step = steps.step_of(config, model, optimizer, strategy, jit=True)
    before = model.get_weights()
    metrics = step(*steps.inputs(0, one_batch(strategy, steps.batch("float64", BATCH))))
    return metrics, [a - b for a, b in zip(before, model.get_weights(), strict=True)]


def compared(measure):
    """What `measure` gives on one device and on all: metrics, and differences of arrays."""
    (expected, theirs), (metrics, ours) = measure(ONE), measure(MIRRORED)
    sizes = [float(np.abs(a).max()) for a in theirs]
    gaps = [float(np.abs(a - b).max()) for a, b in zip(theirs, ours, strict=True)]
    named = [
        {name: float(v) for name, v in found.items() if name != "requests"}
        for found in (metrics, expected)
    ]
    return {"metrics": named[0], "expected": named[1], "sizes": sizes, "gaps": gaps}


def losses_of_equal_halves():
    """Both replicas see the same image, so only what they drop can tell them apart."""
    config, strategy = config_for(), MIRRORED
    with strategy.scope():
        model = steps.dropping_network()
        optimizer = steps.descent(model, rate=0.0)
    step = steps.step_of(config, model, optimizer, strategy, jit=False)
    losses = []
    for replica in (0, 1):
        images, labels = (tf.repeat(v[:1], BATCH, axis=0) for v in steps.batch().values())
        # The other replica's labels are zeros, which have no loss.
        mask = tf.repeat(tf.one_hot(replica, 2), BATCH // 2)[:, None]
        batch = one_batch(strategy, {"image": images, "label": labels * mask})
        losses.append(float(step(*steps.inputs(0, batch))["loss"]))
    return losses


def overflow():
    """The images of the second replica are infinite."""
    config, strategy = config_for(), MIRRORED
    with strategy.scope():
        model = steps.float64_network()
        optimizer = steps.loss_scaling(model, 1.0)
    step = steps.step_of(config, model, optimizer, strategy, jit=False)
    before = model.get_weights()
    images, labels = steps.batch("float64", BATCH).values()
    images *= tf.repeat(tf.constant([1.0, np.inf], "float64"), BATCH // 2)[:, None, None, None]
    metrics = step(*steps.inputs(0, one_batch(strategy, {"image": images, "label": labels})))
    moved = any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    scale = float(optimizer.dynamic_scale.numpy())
    return {"skipped": float(metrics["skipped_updates"]), "scale": scale, "moved": moved}


def statistics():
    """BatchNormalization on two replicas against the mean of what each half alone gives."""
    config, strategy = config_for(), MIRRORED
    with strategy.scope():
        model = steps.normalised_network()
        optimizer = steps.descent(model)
    step = steps.step_of(config, model, optimizer, strategy, jit=False)
    batch = one_batch(strategy, steps.batch("float64", BATCH))
    halves = []
    for images in strategy.experimental_local_results(batch["image"]):
        half = steps.normalised_network()
        half(images, training=True)
        halves.append([v.numpy() for v in half.weights if not v.trainable])
    step(*steps.inputs(0, batch))
    means = [(a + b) / 2 for a, b in zip(*halves, strict=True)]
    moved = [v for v in model.weights if not v.trainable]
    both = [strategy.experimental_local_results(v.value) for v in moved]
    return {
        "gaps": [float(np.abs(a - b.numpy()).max()) for a, b in zip(means, moved, strict=True)],
        "same_on_both": all((a.numpy() == b.numpy()).all() for a, b in both),
    }


def measured():
    if DEVICES > 2:
        return {"replicas": MIRRORED.num_replicas_in_sync, "training": compared(trained)}
    return {
        "replicas": MIRRORED.num_replicas_in_sync,
        "training": compared(trained),
        "gradients": compared(gradients),
        "losses_of_equal_halves": losses_of_equal_halves(),
        "overflow": overflow(),
        "statistics": statistics(),
    }


if __name__ == "__main__":
    print(json.dumps(measured()))
