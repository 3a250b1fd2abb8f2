"""Measures training steps on several logical devices, for `test_step.py`; prints JSON.

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

import keras
import numpy as np
import test_step

from pit_keras.config.fields import Config
from pit_keras.training.averaging import WeightAverage
from pit_keras.training.optimizer import AdamP
from pit_keras.training.schedule import scaled_learning_rate

BATCH, STEPS = 8, 20
ONE = test_step.one_device()
MIRRORED = tf.distribute.MirroredStrategy()


def config_for(kind):
    """With a teacher, clipping and averages; or by plain gradient descent, compiled, in parts."""
    config = Config()
    config.training.batch_size, config.optimizer.clip_norm = BATCH, 0.5
    if kind == "distilled":
        config.distillation.kind = "hard"
    else:
        config.training.batch_size, config.training.accumulate = BATCH // 2, 2
    return config


def named(images, labels):
    return {"image": images, "label": labels}


def batches(strategy):
    """The same global batches whatever the strategy."""
    rng = np.random.default_rng(0)
    side, classes = test_step.SIDE, test_step.CLASSES
    images = np.float32(rng.normal(size=(STEPS, BATCH, side, side, 3)))
    labels = np.float32(rng.dirichlet(np.ones(classes), size=(STEPS, BATCH)))
    share = BATCH // strategy.num_replicas_in_sync
    whole = tf.data.Dataset.from_tensor_slices(named(images, labels)).unbatch()
    return strategy.distribute_datasets_from_function(
        lambda _: whole.batch(share, drop_remainder=True)
    )


def optimizer_for(model, kind):
    """AdamP at the recipes' rate for this batch, or SGD, which sees a factor on the gradients."""
    rate = scaled_learning_rate(5e-4, BATCH)
    adamp = AdamP(rate, weight_decay=0.05)
    optimizer = adamp if kind == "distilled" else keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    return optimizer


def trained(kind, strategy):
    """(replicas, metrics of the last step, weights and averages) after twenty steps."""
    config = config_for(kind)
    with strategy.scope():
        model = test_step.student()
        optimizer, average = optimizer_for(model, kind), WeightAverage(model, 0.9)
    teacher = test_step.teacher if kind == "distilled" else None
    step = test_step.step_of(
        config, model, optimizer, strategy, teacher, jit=kind == "descent", average=average
    )
    for number, batch in enumerate(batches(strategy)):
        metrics = step(batch, tf.constant(number, tf.int64), tf.zeros(2))
    metrics = {name: float(v) for name, v in metrics.items() if name != "requests"}
    values = [variable.numpy() for variable in [*model.weights, *average.variables]]
    return strategy.num_replicas_in_sync, metrics, values


def gap(ours, theirs):
    """Largest difference, relative to each tensor's largest value."""
    return max(
        float(np.abs(a - b).max() / np.abs(a).max())
        for a, b in zip(ours, theirs, strict=True)
        if a.any()
    )


def compared(kind):
    _, expected, ours = trained(kind, ONE)
    replicas, metrics, theirs = trained(kind, MIRRORED)
    return {
        "replicas": replicas,
        "weights": len(theirs),
        "gap": gap(ours, theirs),
        "metrics": metrics,
        "expected": expected,
    }


def losses_of_equal_halves():
    """Both replicas see the same image, so only what they drop can tell them apart."""
    config, strategy = Config(), MIRRORED
    config.training.batch_size = BATCH
    with strategy.scope():
        model = test_step.dropping()
        optimizer = optimizer_for(model, "descent")
    step = test_step.step_of(config, model, optimizer, strategy, jit=False)
    before = model.get_weights()
    losses = []
    for replica in (0, 1):
        images, labels = (tf.repeat(v[:1], BATCH, axis=0) for v in test_step.batch().values())
        # The other replica's labels are zeros, which have no loss.
        mask = tf.repeat(tf.one_hot(replica, 2), BATCH // 2)[:, None]
        data = tf.data.Dataset.from_tensor_slices(named(images, labels * mask)).batch(BATCH // 2)
        batch = next(iter(strategy.distribute_datasets_from_function(lambda _, d=data: d)))
        losses.append(float(step(batch, tf.constant(0, tf.int64), tf.zeros(2))["loss"]))
        model.set_weights(before)
    return losses


def overflow():
    """The images of the second replica are infinite."""
    config, strategy = Config(), MIRRORED
    config.training.batch_size = BATCH
    with strategy.scope():
        model = test_step.student()
        optimizer = test_step.float16_optimizer(model, 1.0)
    step = test_step.step_of(config, model, optimizer, strategy, jit=False)
    before = model.get_weights()
    images, labels = (tf.concat([v, v], 0)[:BATCH] for v in test_step.batch().values())
    images *= tf.repeat(tf.constant([1.0, np.inf]), BATCH // 2)[:, None, None, None]
    data = tf.data.Dataset.from_tensor_slices(named(images, labels)).batch(BATCH // 2)
    batch = next(iter(strategy.distribute_datasets_from_function(lambda _: data)))
    metrics = step(batch, tf.constant(0, tf.int64), tf.zeros(2))
    moved = any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    scale = float(optimizer.dynamic_scale.numpy())
    return {"skipped": float(metrics["skipped_updates"]), "scale": scale, "moved": moved}


def statistics():
    """BatchNormalization on two replicas against the mean of what each half alone gives."""
    config, strategy = Config(), MIRRORED
    config.training.batch_size = BATCH
    with strategy.scope():
        model = test_step.convolutional()
        optimizer = optimizer_for(model, "descent")
    step = test_step.step_of(config, model, optimizer, strategy, jit=False)
    batch = next(iter(batches(strategy)))
    step(batch, tf.constant(0, tf.int64), tf.zeros(2))
    halves = []
    for images in strategy.experimental_local_results(batch["image"]):
        half = test_step.convolutional()
        half(images, training=True)
        halves.append([v.numpy() for v in half.weights if not v.trainable])
    means = [(a + b) / 2 for a, b in zip(*halves, strict=True)]
    moved = [v for v in model.weights if not v.trainable]
    both = [strategy.experimental_local_results(v.value) for v in moved]
    return {
        "count": len(means),
        "gap": gap(means, [variable.numpy() for variable in moved]),
        "same_on_both": all((a.numpy() == b.numpy()).all() for a, b in both),
    }


def measured():
    if DEVICES > 2:
        return {"distilled": compared("distilled")}
    return {
        **{kind: compared(kind) for kind in ("distilled", "descent")},
        "losses_of_equal_halves": losses_of_equal_halves(),
        "overflow": overflow(),
        "statistics": statistics(),
    }


if __name__ == "__main__":
    print(json.dumps(measured()))
