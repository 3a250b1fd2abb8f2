"""One step against the same computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from steps import (
    BATCH,
    DROPPING,
    batch,
    descent,
    dropping_network,
    float64_network,
    inputs,
    loss_scaling,
    normalised_network,
    path_of,
    pit,
    run,
    step_of,
    teacher,
    vit,
)
from tolerances import assert_close
from whole_runs import eagerly

from pit_keras.config.fields import Config
from pit_keras.losses import hard_distillation, soft_cross_entropy, soft_distillation
from pit_keras.models import two_headed
from pit_keras.training.classification_task import ClassificationLoss

IN_FLOAT64 = {"rtol": 1e-9, "atol": 1e-12}  # far from its rounding, and from any fault


@pytest.fixture
def config():
    config = Config()
    config.training.batch_size = BATCH
    config.training.label_smoothing = 0.1
    return config


@pytest.fixture(scope="module")
def whole():
    """Metrics and gradients of a batch as a whole, without clipping, in float64."""
    config = Config()
    config.training.batch_size, config.training.label_smoothing = BATCH, 0.1
    return run(config, float64_network())


def norm_of(gradients):
    return float(np.sqrt(sum(np.sum(gradient**2) for gradient in gradients)))


def assert_all_close(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, **IN_FLOAT64)


@pytest.mark.parametrize(("kind", "tau"), [("hard", 1.0), ("soft", 2.0)])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_distillation_weighs_both_heads(config, kind, tau, alpha):
    config.distillation.kind, config.distillation.tau = kind, tau
    config.distillation.alpha = alpha
    model, of_batch = float64_network(), batch("float64")
    images, labels = of_batch.values()
    logits, distilled = two_headed(model)(images, training=True)
    class_loss = tf.reduce_mean(soft_cross_entropy(labels, logits, 0.1))
    expected = {
        "hard": lambda: hard_distillation(teacher(images), distilled),
        "soft": lambda: soft_distillation(teacher(images), distilled, tau),
    }[kind]
    distillation_loss = tf.reduce_mean(expected())

    loss = ClassificationLoss(config, model, teacher)
    metrics = loss(of_batch, loss.given(of_batch), loss.totals(of_batch))

    whole = (1 - alpha) * class_loss + alpha * distillation_loss
    values = [metrics[name] for name in ("class_loss", "distillation_loss", "loss")]
    assert_all_close(values, (class_loss, distillation_loss, whole))


@pytest.mark.parametrize(("alpha", "still"), [(0.0, "head_dist"), (1.0, "head"), (0.5, None)])
def test_each_head_learns_from_its_own_loss_and_every_weight_from_both(config, alpha, still):
    config.distillation.kind, config.distillation.alpha = "hard", alpha
    model, of_batch = pit(), batch()
    loss = ClassificationLoss(config, model, teacher)
    with tf.GradientTape() as tape:
        total = loss(of_batch, loss.given(of_batch), {})["loss"]
    variables = model.trainable_variables
    for variable, gradient in zip(
        variables, tape.gradient(total, [v.value for v in variables]), strict=True
    ):
        is_still = variable.path.split("/")[0] == still
        assert (gradient is None or not gradient.numpy().any()) == is_still, variable.path


@pytest.mark.parametrize(("network", "kind"), [(pit, "hard"), (vit, "none")])
def test_every_weight_is_moved_by_a_step(config, network, kind):
    config.distillation.kind = kind
    model = network()
    with eagerly():
        _, changes = run(config, model, teacher=teacher if kind == "hard" else None)
    for variable, change in zip(model.trainable_variables, changes, strict=True):
        assert change.any(), variable.path


def test_a_teacher_needs_a_student_with_two_heads(config):
    config.distillation.kind = "hard"
    with pytest.raises(ValueError, match="create a '_distilled' model"):
        run(config, pit("pit_ti"), teacher=teacher)


def test_gradients_are_clipped_together(config, whole):
    _, gradients = whole
    norm = norm_of(gradients)
    for limit, factor in ((norm / 4, 1 / 4), (norm * 2, 1)):
        config.optimizer.clip_norm = limit
        metrics, clipped = run(config, float64_network())
        assert metrics["gradient_norm"] == pytest.approx(norm)
        assert_all_close(clipped, [factor * gradient for gradient in gradients])


def test_clipping_sees_through_the_loss_scaling_of_float16(config, whole):
    _, gradients = whole
    norm = norm_of(gradients)
    config.optimizer.clip_norm = norm / 4
    model = float64_network()
    metrics, changes = run(config, model, loss_scaling(model, 64.0))
    assert_all_close(changes, [gradient / 4 for gradient in gradients])
    assert metrics["gradient_norm"] == pytest.approx(norm)
    assert metrics["loss_scale"] == 64.0
    assert metrics["skipped_updates"] == 0.0


def test_an_update_whose_gradients_overflow_is_skipped_and_told(config):
    model = pit()
    optimizer = loss_scaling(model, 2.0**127)
    with eagerly():
        metrics, changes = run(config, model, optimizer)
    assert metrics["skipped_updates"] == 1.0
    assert metrics["gradient_norm"] == 0.0
    assert metrics["loss_scale"] == 2.0**127
    assert float(optimizer.dynamic_scale) == 2.0**126
    assert not any(change.any() for change in changes)


@pytest.mark.parametrize("kind", ["none", "hard"])
def test_accumulated_batches_do_what_one_large_batch_does(config, kind, whole):
    config.distillation.kind = kind
    options = {"teacher": teacher} if kind == "hard" else {}
    metrics, gradients = run(config, float64_network(), **options) if options else whole
    config.training.batch_size, config.training.accumulate = BATCH // 3, 3
    parts, changes = run(config, float64_network(), **options)
    assert parts == pytest.approx(metrics)
    assert_all_close(changes, gradients)


def test_accumulated_batches_move_the_statistics_of_batch_normalization_in_turn(config):
    model = normalised_network()
    images, _ = batch("float64").values()
    config.training.batch_size, config.training.accumulate = BATCH // 2, 2
    run(config, model)
    expected = normalised_network()
    for half in (images[: BATCH // 2], images[BATCH // 2 :]):
        expected(half, training=True)
    pairs = zip(model.weights, expected.weights, strict=True)
    norms = [(a, b) for a, b in pairs if not a.trainable]
    assert len(norms) == 2
    assert_all_close(*zip(*norms, strict=True))


def losses_of_steps(config, model, jit, *numbers):
    """Losses of steps that leave the weights, and so differ by what they draw."""
    step = step_of(config, model, descent(model, rate=0.0), jit=jit)
    return [float(step(*inputs(number))["loss"]) for number in numbers]


@pytest.mark.parametrize("jit", [False, True])
def test_dropout_is_a_function_of_step_and_batch(config, jit):
    """With recomputed blocks, or compiled."""
    config.training.recompute_blocks = not jit
    model = dropping_network() if jit else vit(**DROPPING)
    third, again, fourth = losses_of_steps(config, model, jit, 3, 3, 4)
    assert third == again != fourth


def test_dropout_is_a_function_of_the_seed(config):
    found = []
    for config.training.seed in (0, 0, 1):
        with eagerly():
            found += losses_of_steps(config, vit(**DROPPING), False, 3)
    first, again, other = found
    assert first == again != other


def test_dropout_differs_between_accumulated_batches(config):
    """All see the same image, and only one at a time has a label: without it there is no loss."""
    config.training.batch_size, config.training.accumulate = 1, BATCH
    config.training.label_smoothing = 0.0
    model = dropping_network()
    step = step_of(config, model, descent(model, rate=0.0), jit=False)
    images, labels = (tf.repeat(values[:1], BATCH, axis=0) for values in batch().values())
    first, second = (
        float(step(*inputs(0, {"image": images, "label": labels * mask[:, None]}))["loss"])
        for mask in (tf.one_hot(part, BATCH) for part in (0, 1))
    )
    assert first != pytest.approx(second, rel=1e-4)


def test_recomputed_blocks_give_the_same_gradients(config):
    model = vit(**DROPPING)
    with eagerly():
        whole, expected = run(config, model)
    config.training.recompute_blocks = True
    again, changes = run(config, vit(**DROPPING))
    scale = max(np.abs(gradient).max() for gradient in expected)
    for name, value in whole.items():
        assert_close(again[name], value, roundings=path_of(model))
    for change, reference in zip(changes, expected, strict=True):
        assert_close(change, reference, roundings=path_of(model), scale=scale)


def test_a_compiled_step_and_one_in_half_precision_do_the_same(config):
    model = pit("pit_ti")
    with eagerly():
        plain, expected = run(config, model)
    compiled, changes = run(config, pit("pit_ti"), jit=True)
    scale = max(np.abs(gradient).max() for gradient in expected)
    assert_close(compiled["loss"], plain["loss"], roundings=path_of(model))
    for change, reference in zip(changes, expected, strict=True):
        assert_close(change, reference, roundings=path_of(model), scale=scale)

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with eagerly():
            half, _ = run(config, pit("pit_ti"))
    finally:
        keras.config.set_dtype_policy("float32")
    assert half["loss"] != plain["loss"]
    # Results are rounded one after the other: eleven in a block, two in a pooling, five around;
    # the sums within them are in float32.
    roundings = 3 * 11 + 2 * 2 + 5
    assert_close(half["loss"], plain["loss"], roundings=roundings, dtype="bfloat16")
