"""`Distiller`: DeiT's loss, a frozen teacher that is in no file, `fit` and `evaluate`."""

import keras
import numpy as np
import pytest

import pit_keras
from pit_keras.losses import hard_distillation, soft_cross_entropy, soft_distillation
from pit_keras.models import two_headed

SIZES = {"input_shape": (16, 16, 3), "patch_size": 4, "stride": 2, "head_dim": 4}
IMAGES = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype("float32")
LABELS = keras.utils.to_categorical(np.arange(8) % 3)


def network(name="pit_ti_distilled", classes=3, **changes):
    sizes = {**SIZES, "depths": (1, 1, 1), **changes}
    return pit_keras.create_model(name, classes=classes, **sizes)


def compiled(student, teacher, rate=0.0, **options):
    distiller = pit_keras.Distiller(student, teacher, **options)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    return distiller


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_loss_is_deits(kind):
    # In inference mode a teacher drops nothing.
    student, teacher = network(), network("pit_ti", drop_rate=0.5)
    head = student.get_layer("head_dist")  # whose answers decide
    head.set_weights([30 * weight for weight in head.get_weights()])
    distiller = compiled(student, teacher, kind=kind, alpha=0.3, tau=2.0)

    history = distiller.fit(IMAGES, LABELS, batch_size=8, verbose=0).history

    logits, distilled = two_headed(student)(IMAGES)
    taught = teacher(IMAGES)
    losses = (
        hard_distillation(taught, distilled)
        if kind == "hard"
        else soft_distillation(taught, distilled, 2.0)
    )
    expected = np.mean(0.7 * soft_cross_entropy(LABELS, logits) + 0.3 * np.asarray(losses))
    # Sums of the network's terms in another order, batched otherwise.
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    answers = np.argmax(logits + distilled, axis=1)
    assert (answers != np.argmax(logits, axis=1)).any()
    hits = answers == np.argmax(LABELS, axis=1)
    assert history["accuracy"][0] == pytest.approx(hits.mean())


def test_evaluation_and_predictions_are_the_students():
    student = network()
    distiller = compiled(student, network("pit_ti"))
    logits = student.predict(IMAGES, verbose=0)
    np.testing.assert_array_equal(distiller.predict(IMAGES, verbose=0), logits)
    loss, _ = distiller.evaluate(IMAGES, LABELS, verbose=0)
    expected = np.mean(soft_cross_entropy(LABELS, logits))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_it_trains_both_heads_and_never_the_teacher(tmp_path):
    student, teacher = network(), network("pit_ti")
    before = [weight.copy() for weight in teacher.get_weights()]
    start = student.get_weights()
    distiller = compiled(student, teacher, rate=0.1)

    distiller.fit(IMAGES, LABELS, batch_size=4, epochs=2, verbose=0)

    for old, weight in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, weight)
    moved = [np.any(old != new) for old, new in zip(start, student.get_weights(), strict=True)]
    assert all(moved)
    distiller.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    logits = student.predict(IMAGES, verbose=0)
    np.testing.assert_array_equal(loaded.predict(IMAGES, verbose=0), logits)
    distiller.save_weights(tmp_path / "both.weights.h5")
    size = (tmp_path / "both.weights.h5").stat().st_size
    student.save_weights(tmp_path / "one.weights.h5")
    # Without the teacher's: what is more is the structure of the file.
    assert size - (tmp_path / "one.weights.h5").stat().st_size < 4 * teacher.count_params() / 2


@pytest.mark.parametrize(
    ("student", "teacher", "options", "problem"),
    [
        ("pit_ti", {}, {}, "'head' and 'head_dist'"),
        ("pit_ti_distilled", {"classes": 4}, {}, "logits .* of the same classes"),
        ("pit_ti_distilled", {"input_shape": (20, 20, 3)}, {}, r"takes images \(20, 20, 3\)"),
        ("pit_ti_distilled", {}, {"kind": "medium"}, "kind must be 'hard' or 'soft'"),
    ],
)
def test_what_cannot_be_distilled(student, teacher, options, problem):
    with pytest.raises(ValueError, match=problem):
        pit_keras.Distiller(network(student), network("pit_ti", **teacher), **options)


def test_labels_of_another_form():
    with pytest.raises(ValueError, match="The labels are class numbers"):
        compiled(network(), network("pit_ti")).fit(IMAGES, np.arange(8) % 3)
