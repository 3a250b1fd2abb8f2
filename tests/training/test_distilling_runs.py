"""Whole runs with a teacher, with updates of several batches."""

import shutil

import keras
import numpy as np
import pytest
from tolerances import assert_close
from whole_runs import checkpoints, eagerly, forget_last_epoch, rows, train

from pit_keras.runs.run_folder import RunFolder


@pytest.fixture(scope="module")
def make_distilling_config(teacher, make_tiny_config):
    """As `make_tiny_config`, of a student that the run teaches, in parts of batches."""

    def make():
        config = make_tiny_config()
        config.model.name = "vit_ti_distilled"
        config.distillation.kind, config.distillation.teacher = "hard", str(teacher)
        config.training.batch_size, config.training.accumulate = 9, 3
        config.training.label_smoothing = 0.1
        return config

    return make


@pytest.fixture(scope="module")
def distilled(make_distilling_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "distilled"
    with eagerly():
        return folder, *train(make_distilling_config(), folder)


def test_distillation_reports_both_parts_of_its_loss_and_learns(distilled):
    history = rows(distilled[0])
    for row in history:
        parts = [float(row[name]) for name in ("class_loss", "distillation_loss")]
        # Each is a sum over the 27 images of an update, divided by their number.
        assert_close(float(row["loss"]), sum(parts) / 2, roundings=27 + 3)
    assert float(history[-1]["loss"]) < float(history[0]["loss"])


def test_the_teacher_is_not_saved(distilled):
    path, trainer, _ = distilled
    size = sum(weight.numpy().nbytes for weight in trainer.model.weights)
    saved = keras.models.load_model(RunFolder(path).model)
    assert [w.shape for w in saved.weights] == [w.shape for w in trainer.model.weights]
    with np.load(checkpoints(path)[-1]) as arrays:
        stored = sum(arrays[name].nbytes for name in arrays.files if "/" in name)
    # Weights, two moments and the average; of the teacher there is no room for a half.
    assert 4 * size <= stored < 4.5 * size


def test_a_distilling_run_that_was_cut_short_ends_as_it_would_have(
    distilled, make_distilling_config, tmp_path
):
    path, trainer, results = distilled
    folder = shutil.copytree(path, tmp_path / "copy")
    forget_last_epoch(folder)

    with eagerly():
        resumed, again = train(make_distilling_config(), folder)

    assert rows(folder) == rows(path)
    assert again == results
    for a, b in zip(trainer.average.variables, resumed.average.variables, strict=True):
        np.testing.assert_array_equal(a, b)
