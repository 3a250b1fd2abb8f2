"""Runs that were cut short, and run folders in which something is lost or damaged."""

import copy
import json
import os
import pathlib
import re
import shutil
import signal

import keras
import numpy as np
import pytest
from whole_runs import checkpoints, contents, events, rows, train, trainer_of

from pit_keras.runs.run_folder import RunFolder
from pit_keras.runs.trained_model import load_trained_model
from pit_keras.training.interruption import TrainingInterrupted
from pit_keras.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("eager_functions")

LAST = 1  # epoch of the finished run


def assert_ends_like(finished, folder, trainer, results):
    """The folder and the trainer of a run are those of the finished one, to the last bit."""
    _, path, expected, expected_results = finished
    assert results == expected_results
    assert folder.history.read_bytes() == RunFolder(path).history.read_bytes()
    for state in ("model", "optimizer", "average"):
        ours, theirs = (each.state.arrays(parts=(state,)) for each in (trainer, expected))
        for name in theirs.keys() - {"progress"}:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_an_unreadable_checkpoint_falls_back_to_the_one_before(finished, unfinished, capsys):
    config, folder = unfinished
    newest = checkpoints(folder.path)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])

    resumed = train(config, folder.path)

    printed = capsys.readouterr().out
    assert "step-00000004.npz cannot be read" in printed
    # The end of an epoch is saved too where that takes little of the time.
    assert re.search("Resuming (in epoch 1 of 2, after step 2 of 2|after epoch 1 of 2)", printed)
    assert_ends_like(finished, folder, *resumed)


def test_a_run_killed_while_its_first_epoch_was_saved_begins_anew(
    finished, make_tiny_config, tmp_path, capsys
):
    folder = RunFolder(tmp_path)
    folder.create(make_tiny_config(), ("0", "1", "2"))
    history = RunFolder(finished[1]).history.read_text()
    folder.history.write_text("".join(history.splitlines(keepends=True)[:2]))

    again = train(make_tiny_config(), tmp_path)

    assert "has no checkpoint; starting over" in capsys.readouterr().out
    assert_ends_like(finished, folder, *again)


def test_an_evaluation_that_cannot_be_finished_saves_the_epoch_that_was_trained(
    finished, before_last_epoch
):
    """First a validation image that the first look missed is broken, then a signal comes."""

    class Unlooked(Trainer):
        def _train_epoch(self, batches):
            super()._train_epoch(batches)
            if self.state.progress.epoch == LAST:
                image.write_bytes(b"not an image")

    class Signalled(Trainer):
        def _evaluate(self, can_stop=False):
            os.kill(os.getpid(), signal.SIGTERM)
            return super()._evaluate(can_stop)

    config, folder = before_last_epoch
    config.training.checkpoint_every_steps = None
    config.training.checkpoint_every_minutes = None
    trainer = trainer_of(config, folder.path, Unlooked)
    image = pathlib.Path(trainer.source.describe("val", 4))
    whole = image.read_bytes()
    try:
        with pytest.raises(ValueError, match=rf"{image} .* is saved; repair the image"):
            trainer.run()
    finally:
        image.write_bytes(whole)
    assert [path.name for path in checkpoints(folder.path)][-1] == "step-00000004.npz"

    with pytest.raises(TrainingInterrupted, match="epoch 2 of 2, after step 2 of 2"):
        trainer_of(config, folder.path, Signalled).run()
    assert len(rows(folder.path)) == LAST
    (interrupted,) = events(folder.path, "interrupted")
    assert (interrupted["step"], interrupted["signal"]) == (4, "SIGTERM")

    assert_ends_like(finished, folder, *train(finished[0], folder.path))


def test_a_folder_that_another_process_trains_in_is_left_alone(unfinished):
    config, folder = unfinished
    with folder.locked():
        before = contents(folder.path)
        with pytest.raises(OSError, match="Another process is training in"):
            train(config, folder.path)
        assert contents(folder.path) == before


def test_lost_checkpoints_are_not_answered_by_a_silent_new_start(unfinished):
    config, folder = unfinished
    shutil.rmtree(folder.checkpoints)
    before = contents(folder.path)
    with pytest.raises(FileNotFoundError, match=r"finished epochs, but .*checkpoints has no"):
        train(config, folder.path)
    assert contents(folder.path) == before


def assert_same_model(path, folder):
    models = [keras.models.load_model(each / "model.keras") for each in (path, folder.path)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_lost_model_history_and_configuration_are_written_anew(unfinished, finished, capsys):
    config, folder = unfinished
    whole = RunFolder(finished[1])
    for name in ("model", "history", "config"):
        getattr(folder, name).unlink()

    assert_ends_like(finished, folder, *train(config, folder.path))

    printed = capsys.readouterr().out
    assert "is missing" in printed
    assert "model.keras is written anew from the checkpoint of the best epoch" in printed
    assert_same_model(whole.path, folder)
    assert folder.config.read_bytes() == whole.config.read_bytes()


def test_a_damaged_model_of_a_finished_run_is_written_anew(unfinished, finished, capsys):
    config, folder = unfinished
    _, path, _, results = finished
    folder.model.write_bytes(folder.model.read_bytes()[:5000])
    folder.results.write_text(json.dumps(results))

    assert train(config, folder.path)[1] == results

    printed = capsys.readouterr().out
    assert "model.keras cannot be loaded" in printed
    assert "model.keras is written anew from the checkpoint of the best epoch" in printed
    assert_same_model(path, folder)


@pytest.mark.parametrize("damage", [None, b"", b"\xff{"])
def test_lost_and_damaged_files_of_a_finished_run_are_written_anew(
    finished, tmp_path, capsys, damage
):
    config, path, *_ = finished
    folder, whole = RunFolder(shutil.copytree(path, tmp_path / "copy")), RunFolder(path)
    names = ("config", "classes", "history")
    for name in names:
        file = getattr(folder, name)
        file.unlink() if damage is None else file.write_bytes(damage)
    if damage is not None:
        folder.results.write_bytes(damage)
    trained = load_trained_model(folder.path)
    assert (trained.class_names, trained.data.mean) == (("0", "1", "2"), config.data.mean)

    for _ in range(2):  # the results first
        train(config, folder.path)

    for name in (*names, "results"):
        assert getattr(folder, name).read_bytes() == getattr(whole, name).read_bytes()
    assert "is written anew" in capsys.readouterr().out


def test_what_no_checkpoint_holds_is_told_by_its_file(finished, tmp_path, capsys):
    config, path, *_ = finished
    folder = RunFolder(shutil.copytree(path, tmp_path / "copy"))
    shutil.rmtree(folder.checkpoints)
    folder.history.write_text("epoch,lo")
    train(config, folder.path)
    assert "history.csv is damaged, and no checkpoint holds it" in capsys.readouterr().out
    folder.config.unlink()
    with pytest.raises(OSError, match=r"config\.json, which says how a model's images are prep"):
        load_trained_model(folder.model)


def test_a_folder_that_vanishes_is_told_at_the_next_save(make_tiny_config, tmp_path):
    class Vanishing(Trainer):
        def _evaluate(self, can_stop=False):
            shutil.rmtree(self.folder.path, ignore_errors=True)
            return super()._evaluate(can_stop)

    with pytest.raises(FileNotFoundError, match="run was removed or moved while the run trained"):
        trainer_of(make_tiny_config(), tmp_path / "run", Vanishing).run()
    assert not (tmp_path / "run/results.json").exists()


def test_a_model_that_cannot_be_written_anew(unfinished):
    config, folder = unfinished
    folder.model.unlink()
    (folder.checkpoints / "best.npz").unlink()
    with pytest.raises(FileNotFoundError, match="is lost, and so is the best epoch's checkpoint"):
        train(config, folder.path)


def test_checkpoints_of_another_run_are_left_alone(unfinished):
    config, folder = unfinished
    config = copy.deepcopy(config)
    config.training.epochs, config.training.log_every_steps = 3, 7
    folder.config.write_text(config.to_json())
    before = [path.read_bytes() for path in checkpoints(folder.path)]

    with pytest.raises(OSError, match=r"not of this run: training.epochs is 2 there and 3 here\."):
        train(config, folder.path)

    assert not folder.finished
    assert [path.read_bytes() for path in checkpoints(folder.path)] == before
