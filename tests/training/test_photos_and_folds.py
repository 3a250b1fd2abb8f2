"""The recipe `photos` without a network, and folds, by the script."""

import json

import forked
import pytest
from runs import SCRIPT, flags

from pit_keras.runs.run_folder import RunFolder


def arguments(images, output_dir, *more):
    """The run of `flags` by the recipe `photos`, with its own batch and epochs."""
    own = ("--recipe", "--batch_size", "--checkpoint", "--config.optimizer.warmup")
    kept = [flag for flag in flags(images, output_dir) if not flag.startswith(own)]
    return ["--recipe=photos", *kept, *more]


@pytest.fixture
def without_network(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


@pytest.mark.usefixtures("without_network")
def test_photos_begins_from_random_weights_where_there_are_no_others(digit_folder, tmp_path):
    short = ("--epochs=1", "--config.optimizer.warmup_epochs=0")
    done = forked.run_script(SCRIPT, *arguments(digit_folder, tmp_path / "run", *short))
    assert done.returncode == 0, done.stderr
    assert "Without them it is trained from random weights." in done.stdout
    config = RunFolder(tmp_path / "run").read_config()
    assert config.model.weights is None
    assert config.training.batch_size == 4  # for 54 images
    again = forked.run_script(SCRIPT, *arguments(digit_folder, tmp_path / "run", *short))
    assert "is finished; nothing is changed" in again.stdout
    # The sizes of the network come with the weights of a run.
    command = arguments(digit_folder, tmp_path / "next", f"--weights={tmp_path / 'run'}", *short)
    unsized = [flag for flag in command if not flag.startswith("--config.model.")]
    shown = forked.run_script(SCRIPT, *unsized, "--preview=1")
    assert f"As in {tmp_path / 'run'}: patch_size 4, stride 4, head_dim 4" in shown.stdout


def test_folds_are_runs_of_their_own_and_carry_on(digit_folder, tmp_path):
    short = (
        "--weights=none",
        "--batch_size=10",
        "--epochs=1",
        "--config.optimizer.warmup_epochs=0",
    )
    command = arguments(digit_folder, tmp_path / "runs", "--folds=2", *short)
    done = forked.run_script(SCRIPT, *command)
    assert done.returncode == 0, done.stderr
    folds = [RunFolder(tmp_path / f"runs/fold-{number}") for number in (1, 2)]
    assert [fold.read_config().data.fold for fold in folds] == [(1, 2), (2, 2)]
    results = [json.loads(fold.results.read_text()) for fold in folds]
    assert [(each["train_images"], each["images"]) for each in results] == 2 * [(30, 30)]
    summary = (tmp_path / "runs/folds.json").read_text()
    assert json.loads(summary)["folds"] == results
    folds[1].results.unlink()
    assert "Fold 2 of 2:" in forked.run_script(SCRIPT, *command).stdout
    assert (tmp_path / "runs/folds.json").read_text() == summary


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--folds=2", "--preview=1"], "--folds makes several runs; leave out --preview"),
        (["--folds=2", "--config.data.fold=1,2"], "--folds makes several runs"),
        (["--folds=2", "--distribute=multi_worker"], "must be none or mirrored"),
        (["--folds=1"], "--folds=1"),
        (["--folds=40"], "has fewer images than 40 folds for '0'"),
    ],
)
def test_folds_that_cannot_be(more, message, digit_folder, tmp_path):
    done = forked.run_script(SCRIPT, *arguments(digit_folder, tmp_path / "runs", *more))
    assert done.returncode != 0
    assert message in done.stderr
