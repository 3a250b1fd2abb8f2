"""One step against the same computed by hand."""

import json
import pathlib

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf

from pit_keras.config.fields import Config
from pit_keras.create import create_model
from pit_keras.models import two_headed
from pit_keras.training.classification_task import ClassificationLoss
from pit_keras.training.losses import hard_distillation, soft_cross_entropy, soft_distillation
from pit_keras.training.step import compiled_step

SIDE, CLASSES, BATCH = 24, 5, 6


@pytest.fixture
def config():
    config = Config()
    config.training.batch_size = BATCH
    config.training.label_smoothing = 0.1
    return config


def student(name="pit_ti_distilled", **rates):
    keras.utils.set_random_seed(0)
    return create_model(
        name,
        classes=CLASSES,
        input_shape=(SIDE, SIDE, 3),
        patch_size=4,
        stride=4,
        head_dim=4,
        depths=(1, 1, 1),
        **rates,
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
    return {"image": tf.constant(images), "label": tf.constant(labels)}


def teacher(images):
    """Logits that depend on the images and have a clear favourite."""
    return 10 * tf.reshape(images[:, :CLASSES, 0, 0], (-1, CLASSES))


def one_device():
    return tf.distribute.OneDeviceStrategy("CPU:0")


def inputs(number=0, values=None):
    """What a step takes: a batch, the step's number and no requests."""
    return values or batch(), tf.constant(number, tf.int64), tf.zeros(2)


def step_of(config, model, optimizer, strategy=None, teacher=None, **options):
    """The step of a classifier."""
    loss = ClassificationLoss(config, model, teacher)
    return compiled_step(config, model, loss, optimizer, strategy or one_device(), **options)


def run(config, model, optimizer=None, values=None, number=0, jit=False, teacher=None):
    """Metrics of one step, and how far it moved each trainable variable."""
    step = step_of(config, model, optimizer or descent(model), jit=jit, teacher=teacher)
    before = [variable.numpy() for variable in model.trainable_variables]
    metrics = step(*inputs(number, values))
    metrics = {name: float(v) for name, v in metrics.items() if name != "requests"}
    after = model.trainable_variables
    return metrics, [old - new.numpy() for old, new in zip(before, after, strict=True)]


@pytest.mark.parametrize(("kind", "tau"), [("hard", 1.0), ("soft", 2.0)])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_distillation_weighs_both_heads(config, kind, tau, alpha):
    config.distillation.kind, config.distillation.tau = kind, tau
    config.distillation.alpha = alpha
    images, labels = batch().values()
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
    metrics, changes = run(config, model, optimizer)
    for clipped, change in zip(changes, whole, strict=True):
        np.testing.assert_allclose(clipped, change / 4, rtol=1e-3, atol=1e-6)
    assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-3)
    assert metrics["loss_scale"] == 64.0
    assert metrics["skipped_updates"] == 0.0


def float16_optimizer(model, scale):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=scale)
    optimizer.build(model.trainable_variables)
    return optimizer


def test_an_update_whose_gradients_overflow_is_skipped_and_told(config):
    model = student()
    optimizer = float16_optimizer(model, 2.0**127)
    metrics, changes = run(config, model, optimizer)
    assert metrics["skipped_updates"] == 1.0
    assert metrics["gradient_norm"] == 0.0
    assert metrics["loss_scale"] == 2.0**127
    assert float(optimizer.dynamic_scale) == 2.0**126
    assert not any(change.any() for change in changes)


@pytest.mark.parametrize("kind", ["none", "hard"])
def test_accumulated_batches_do_what_one_large_batch_does(config, kind):
    config.distillation.kind = kind
    options = {"teacher": teacher} if kind == "hard" else {}
    whole, expected = run(config, student(), **options)
    config.training.batch_size, config.training.accumulate = BATCH // 3, 3
    parts, changes = run(config, student(), **options)
    assert parts == pytest.approx(whole, rel=1e-5)
    for change, reference in zip(changes, expected, strict=True):
        bound = 1e-5 * np.abs(reference).max()
        np.testing.assert_allclose(change, reference, rtol=1e-5, atol=bound)


def test_accumulated_batches_move_the_statistics_of_batch_normalization_in_turn(config):
    model = convolutional()
    images, _ = batch().values()
    config.training.batch_size, config.training.accumulate = BATCH // 2, 2
    run(config, model)
    expected = convolutional()
    for half in (images[: BATCH // 2], images[BATCH // 2 :]):
        expected(half, training=True)
    pairs = zip(model.weights, expected.weights, strict=True)
    norms = [(a, b) for a, b in pairs if not a.trainable]
    assert len(norms) > 10
    for a, b in norms:
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-7)


def convolutional():
    keras.utils.set_random_seed(0)
    sizes = {"depths": (1, 1, 1, 1), "base_width": 4}
    return create_model("resnet50", classes=CLASSES, input_shape=(SIDE, SIDE, 3), **sizes)


def dropping():
    return student("pit_ti", drop_path_rate=0.5, drop_rate=0.2)


def standing_still(model):
    """An optimizer that leaves the weights, so that steps differ by what they draw."""
    optimizer = keras.optimizers.SGD(0.0)
    optimizer.build(model.trainable_variables)
    return optimizer


@pytest.mark.parametrize(("jit", "recompute"), [(False, False), (False, True), (True, False)])
def test_dropout_is_a_function_of_seed_step_and_batch(config, jit, recompute):
    config.training.recompute_blocks = recompute
    model = dropping()
    standing = standing_still(model)

    def losses(*numbers):
        step = step_of(config, model, standing, jit=jit)
        return [float(step(*inputs(number))["loss"]) for number in numbers]

    third, again, fourth = losses(3, 3, 4)
    assert third == again != fourth
    config.training.seed = 1
    assert losses(3) != [third]


def test_dropout_differs_between_accumulated_batches(config):
    """All see the same image, and only one at a time has a label: without it there is no loss."""
    config.training.batch_size, config.training.accumulate = 1, BATCH
    config.training.label_smoothing = 0.0
    model = dropping()
    step = step_of(config, model, standing_still(model), jit=False)
    images, labels = (tf.repeat(values[:1], BATCH, axis=0) for values in batch().values())
    first, second = (
        float(step(*inputs(0, {"image": images, "label": labels * mask[:, None]}))["loss"])
        for mask in (tf.one_hot(part, BATCH) for part in (0, 1))
    )
    assert first != pytest.approx(second, rel=1e-4)


def test_recomputed_blocks_give_the_same_gradients(config):
    whole, expected = run(config, dropping())
    config.training.recompute_blocks = True
    again, changes = run(config, dropping())
    assert again == pytest.approx(whole, rel=1e-6)
    for change, reference in zip(changes, expected, strict=True):
        np.testing.assert_allclose(change, reference, rtol=1e-5, atol=1e-7)


def measured_on(devices):
    """What `several_devices.py` measured, in a process of its own for its devices."""
    script = pathlib.Path(__file__).parent / "several_devices.py"
    process = forked.run_script(script, devices)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def on_two_devices():
    return measured_on(2)


@pytest.mark.parametrize("kind", ["distilled", "descent"])
def test_two_replicas_do_what_one_does_over_twenty_steps(on_two_devices, kind):
    check_that_replicas_do_what_one_does(on_two_devices[kind], 2)


def test_four_replicas_do_what_one_does_over_twenty_steps():
    check_that_replicas_do_what_one_does(measured_on(4)["distilled"], 4)


def check_that_replicas_do_what_one_does(found, devices):
    assert found["replicas"] == devices
    assert found["weights"] > 50
    assert found["gap"] < 1e-5
    assert found["metrics"] == pytest.approx(found["expected"], rel=1e-5)


def test_replicas_drop_differently(on_two_devices):
    first, second = on_two_devices["losses_of_equal_halves"]
    assert first != pytest.approx(second, rel=1e-4)


def test_an_overflow_on_one_replica_skips_the_update_on_both(on_two_devices):
    assert on_two_devices["overflow"] == {"skipped": 1.0, "scale": 0.5, "moved": False}


def test_statistics_are_the_means_over_the_replicas(on_two_devices):
    found = on_two_devices["statistics"]
    assert found["count"] > 10
    assert found["gap"] < 1e-6
    assert found["same_on_both"]
