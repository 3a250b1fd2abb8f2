"""What a run that went to its end leaves in its folder."""

import json
import shutil

import keras
import numpy as np
import pytest
from steps import path_of
from tolerances import assert_close
from whole_runs import checkpoints, contents, eagerly, events, rows, train, trainer_of

from pit_keras.config.fields import Config
from pit_keras.evaluation.classification import evaluate_source
from pit_keras.runs.run_folder import RunFolder
from pit_keras.runs.trained_model import load_trained_model
from pit_keras.schedules import WarmUpCosine
from pit_keras.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("eager_functions")

KINDS = {"raw": "val_", "averaged": "val_averaged_"}


def test_the_run_folder_holds_what_it_should(finished):
    config, path, _, results = finished
    folder = RunFolder(path)
    assert Config.from_json(folder.config.read_text()) == config
    assert folder.classes.read_text() == "0\n1\n2\n"
    assert json.loads(folder.results.read_text()) == results
    assert len(rows(path)) == 2
    assert list(folder.logs.rglob("events.out.tfevents.*"))
    assert [file.name for file in checkpoints(path)] == ["step-00000002.npz", "step-00000004.npz"]
    assert (folder.checkpoints / "best.npz").exists()
    assert [file.name for file in path.iterdir() if file.name.startswith(".")] == [".lock"]


def test_results_are_those_of_the_best_epoch_and_of_the_saved_model(finished):
    _, path, trainer, results = finished
    history = rows(path)
    assert results["images"] == 6
    ranks = [
        max((float(row[kind + "top1"]), -float(row[kind + "loss"])) for kind in KINDS.values())
        for row in history
    ]
    assert results["best_epoch"] == ranks.index(max(ranks)) + 1
    assert results["top1"] == max(results[kind]["top1"] for kind in KINDS) == max(ranks)[0]
    for kind, prefix in KINDS.items():
        expected = float(history[results["best_epoch"] - 1][prefix + "loss"])
        assert results[kind]["loss"] == pytest.approx(expected)
    assert results["loss"] == pytest.approx(results[results["weights"]]["loss"])
    assert_is_saved(trainer, path, results)


def assert_is_saved(trainer, path, results):
    """The results are those of model.keras, evaluated in batches of another size."""
    again = evaluate_source(load_trained_model(path), trainer.source, batch_size=4, progress=False)
    assert again["images"] == results["images"]
    assert_close(again["loss"], results["loss"], roundings=path_of(trainer.model))


class Judging(Trainer):
    """Finds all images right with one kind of weights, and none with others."""

    better = None

    def _evaluate(self, can_stop=False):
        pairs = zip(self.model.weights, self.average.variables, strict=True)
        is_averaged = all(np.array_equal(a, b) for a, b in pairs)
        figures = super()._evaluate(can_stop)
        return {**figures, "top1": float(is_averaged == (self.better == "averaged"))}


@pytest.fixture(scope="module")
def judged(make_tiny_config, tmp_path_factory):
    """Two short runs, saved whenever a moment has passed, {the better weights: run}."""
    found = {}
    for better in KINDS:
        config = make_tiny_config()
        if better == "averaged":
            config.training.epochs, config.optimizer.warmup_epochs = 1, 0.0
        config.training.checkpoint_every_steps, config.training.keep_checkpoints = None, 3
        config.training.checkpoint_every_minutes = 1e-9
        folder = tmp_path_factory.mktemp("runs") / better
        with eagerly():
            trainer = trainer_of(config, folder, Judging)
            trainer.better = better
            found[better] = config, folder, trainer, trainer.run()
    return found


@pytest.mark.parametrize(("better", "other"), [("raw", "averaged"), ("averaged", "raw")])
def test_the_better_of_raw_and_averaged_weights_is_kept_and_both_are_told(better, other, judged):
    _, path, trainer, results = judged[better]
    losses = [float(row[KINDS[better] + "loss"]) for row in rows(path)]
    assert (results["weights"], results["best_epoch"]) == (better, losses.index(min(losses)) + 1)
    assert (results["top1"], results[better]["top1"], results[other]["top1"]) == (1, 1, 0)
    assert (rows(path)[0][KINDS[better] + "top1"], rows(path)[0][KINDS[other] + "top1"]) == (
        "1.0",
        "0.0",
    )
    assert results["loss"] == results[better]["loss"] != results[other]["loss"]
    assert_is_saved(trainer, path, results)


def test_a_lost_model_of_averaged_weights_is_written_anew(judged, tmp_path):
    config, path, _, results = judged["averaged"]
    folder = RunFolder(shutil.copytree(path, tmp_path / "copy"))
    folder.model.unlink()
    assert train(config, folder.path)[1] == results
    models = [keras.models.load_model(each / "model.keras") for each in (path, folder.path)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)


def test_saving_by_minutes(judged):
    _, path, *_ = judged["raw"]
    assert {event["step"] for event in events(path, "checkpoint")} == {1, 2, 3, 4}
    steps = [f"step-0000000{step}.npz" for step in (2, 3, 4)]
    assert [file.name for file in checkpoints(path)] == steps


def test_history_is_plausible_and_ends_at_the_lowest_rate(finished):
    _, path, trainer, _ = finished
    history = rows(path)
    assert [int(row["epoch"]) for row in history] == [1, 2]
    for epoch, row in enumerate(history, 1):
        schedule = WarmUpCosine(peak=0.05 * 27 / 512, steps=4, warmup_steps=2)
        expected = float(schedule(epoch * trainer.steps))
        assert float(row["learning_rate"]) == pytest.approx(expected)
    assert float(history[-1]["loss"]) < float(history[0]["loss"])


def test_the_log_tells_what_happened(finished):
    config, path, trainer, results = finished
    (start,) = events(path, "start")
    assert (start["step"], start["replicas"], start["jit"]) == (0, 1, False)
    assert start["parameters"] == trainer.model.count_params()
    assert [event["step"] for event in events(path, "epoch")] == [2, 4]
    for event, row in zip(events(path, "epoch"), rows(path), strict=True):
        assert {name: event[name] for name in row} == {n: json.loads(v) for n, v in row.items()}
        assert event["images_per_second"] > 0
        assert 0 <= event["data_wait"] <= 1
    assert events(path, "checkpoint")[-1]["file"] == "checkpoints/step-00000004.npz"
    (end,) = events(path, "end")
    assert end["top1"] == results["top1"]
    assert len(events(path, "step")) == 4 // config.training.log_every_steps


def test_a_finished_run_is_not_touched(finished):
    config, path, _, results = finished
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    _, again = train(config, path)
    assert again == results
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_another_configuration_is_refused_and_nothing_changed(finished, make_tiny_config):
    _, path, *_ = finished
    before = contents(path)
    config = make_tiny_config()
    config.training.seed, config.optimizer.weight_decay = 7, 0.3
    with pytest.raises(ValueError, match=r"weight_decay is 0\.05 there and 0\.3 here"):
        train(config, path)
    assert contents(path) == before


def test_a_seed_decides_the_first_weights_and_the_order_of_the_images(make_tiny_config, tmp_path):
    def drawn(seed):
        config = make_tiny_config()
        config.training.seed = seed
        config.data.dataset, config.data.cutmix_alpha = "digits", 0.0
        trainer = trainer_of(config, tmp_path / "run")
        (batch,) = trainer._train_batches().take(1)
        return trainer.model.get_layer("patch_embedding").get_weights()[0], batch["id"].numpy()

    # That the same seed draws the same is what every run that is carried on shows.
    for one, other in zip(drawn(0), drawn(1), strict=True):
        assert (one != other).any()
