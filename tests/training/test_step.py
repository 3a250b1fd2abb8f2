"""One step against the same computed by hand."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from pit_keras.models import create_model, two_headed
from pit_keras.training.config import Config
from pit_keras.training.losses import hard_distillation, soft_cross_entropy, soft_distillation
from pit_keras.training.step import compiled_step

SIDE, CLASSES, BATCH = 24, 5, 6


@pytest.fixture
def config():
    config = Config()
    config.training.batch_size, config.training.jit = BATCH, False
    config.training.label_smoothing = 0.1
    return config


def student(name="pit_ti_distilled"):
    keras.utils.set_random_seed(0)
    return create_model(
        name,
        classes=CLASSES,
        input_shape=(SIDE, SIDE, 3),
        patch_size=4,
        stride=4,
        head_dim=4,
        depths=(1, 1, 1),
    )


def descent(model):
    """Plain gradient descent: its update is the gradient."""
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build(model.trainable_variables)
    return optimizer


def batch():
    rng = np.random.default_rng(0)
    images = np.float32(rng.normal(size=(BATCH, SIDE, SIDE, 3)))
    labels = np.float32(rng.dirichlet(np.ones(CLASSES), size=BATCH))
    return tf.constant(images), tf.constant(labels)


def teacher(images):
    """Logits that depend on the images and have a clear favourite."""
    return 10 * tf.reshape(images[:, :CLASSES, 0, 0], (-1, CLASSES))


def run(config, model, **options):
    strategy = tf.distribute.get_strategy()
    step = compiled_step(config, model, descent(model), strategy, **options)
    before = [variable.numpy() for variable in model.trainable_variables]
    metrics = {name: float(value) for name, value in step(*batch()).items()}
    after = model.trainable_variables
    return metrics, [old - new.numpy() for old, new in zip(before, after, strict=True)]


@pytest.mark.parametrize(("kind", "tau"), [("hard", 1.0), ("soft", 2.0)])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_distillation_weighs_both_heads(config, kind, tau, alpha):
    config.distillation.kind, config.distillation.tau = kind, tau
    config.distillation.alpha = alpha
    images, labels = batch()
    logits, distilled = two_headed(student())(images, training=True)
    class_loss = tf.reduce_mean(soft_cross_entropy(labels, logits, 0.1))
    loss = {
        "hard": lambda: hard_distillation(teacher(images), distilled),
        "soft": lambda: soft_distillation(teacher(images), distilled, tau),
    }[kind]
    distillation_loss = tf.reduce_mean(loss())

    metrics, _ = run(config, student(), teacher=teacher)

    assert metrics["class_loss"] == pytest.approx(float(class_loss), rel=1e-5)
    assert metrics["distillation_loss"] == pytest.approx(float(distillation_loss), rel=1e-5)
    whole = (1 - alpha) * class_loss + alpha * distillation_loss
    assert metrics["loss"] == pytest.approx(float(whole), rel=1e-5)


@pytest.mark.parametrize(("alpha", "still"), [(0.0, "head_dist"), (1.0, "head")])
def test_each_head_learns_from_its_own_loss(config, alpha, still):
    config.distillation.kind, config.distillation.alpha = "hard", alpha
    model = student()
    _, changes = run(config, model, teacher=teacher)
    for variable, change in zip(model.trainable_variables, changes, strict=True):
        layer = variable.path.split("/")[0]
        if layer in ("head", "head_dist"):
            assert change.any() == (layer != still), variable.path


def test_every_weight_learns_in_distillation(config):
    config.distillation.kind = "hard"
    model = student()
    _, changes = run(config, model, teacher=teacher)
    for variable, change in zip(model.trainable_variables, changes, strict=True):
        assert change.any(), variable.path


def test_a_teacher_needs_a_student_with_two_heads(config):
    config.distillation.kind = "hard"
    with pytest.raises(ValueError, match="a model whose name ends in '_distilled'"):
        run(config, student("pit_ti"), teacher=teacher)


def test_gradients_are_clipped_together(config):
    _, whole = run(config, student())
    norm = np.sqrt(sum(np.sum(change**2) for change in whole))
    config.optimizer.clip_norm = float(norm / 4)
    _, clipped = run(config, student())
    for a, b in zip(whole, clipped, strict=True):
        np.testing.assert_allclose(b, a / 4, rtol=1e-3, atol=1e-6)
    config.optimizer.clip_norm = float(norm * 2)
    _, same = run(config, student())
    for a, b in zip(whole, same, strict=True):
        np.testing.assert_array_equal(a, b)


def test_clipping_sees_through_the_loss_scaling_of_float16(config):
    _, whole = run(config, student())
    norm = np.sqrt(sum(np.sum(change**2) for change in whole))
    config.optimizer.clip_norm = float(norm / 4)
    model = student()
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=64.0)
    optimizer.build(model.trainable_variables)
    step = compiled_step(config, model, optimizer, tf.distribute.get_strategy())
    before = [variable.numpy() for variable in model.trainable_variables]
    step(*batch())
    for old, new, change in zip(before, model.trainable_variables, whole, strict=True):
        np.testing.assert_allclose(old - new.numpy(), change / 4, rtol=1e-3, atol=1e-6)


TWO_DEVICES = """
import json, sys
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, sys.argv[1])
import numpy as np
import test_step
from pit_keras.training.averaging import WeightAverage
from pit_keras.training.config import Config
from pit_keras.training.step import compiled_step

config = Config()
config.training.batch_size, config.training.jit = test_step.BATCH, False
config.distillation.kind, config.optimizer.clip_norm = "hard", 0.5


def trained(strategy, distribute):
    config.training.distribute = distribute
    with strategy.scope():
        model = test_step.student()
        optimizer, average = test_step.descent(model), WeightAverage(model, 0.9)
    step = compiled_step(config, model, optimizer, strategy, test_step.teacher, average)
    batches = tf.data.Dataset.from_tensors(test_step.batch()).unbatch().repeat(3)
    batches = batches.batch(test_step.BATCH, drop_remainder=True)
    metrics = [step(*batch) for batch in strategy.experimental_distribute_dataset(batches)]
    values = [variable.numpy() for variable in [*model.weights, *average.variables]]
    return {name: float(value) for name, value in metrics[-1].items()}, values


two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
(one, ours), (mirrored, theirs) = (
    trained(tf.distribute.get_strategy(), "none"), trained(two, "mirrored")
)
gaps = [float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(ours, theirs) if a.any()]
print(json.dumps({"replicas": two.num_replicas_in_sync, "gap": max(gaps), "count": len(gaps),
                  "one": one, "mirrored": mirrored}))
"""


def test_two_replicas_do_what_one_does():
    """Teacher, clipping and averages included; in a process of its own, for its devices."""
    folder = pathlib.Path(__file__).parent
    process = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, folder], check=True, stdout=subprocess.PIPE, text=True
    )
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["replicas"] == 2
    assert found["count"] > 50
    assert found["gap"] < 1e-5
    assert found["mirrored"] == pytest.approx(found["one"], rel=1e-5)
