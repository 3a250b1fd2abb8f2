import copy
import csv
import json
import math
import os
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from pit_keras.config.fields import Config, set_field
from pit_keras.create import create_model
from pit_keras.data.labelled_images import open_source
from pit_keras.data.pipeline import train_batches
from pit_keras.evaluation.classification import evaluate_source
from pit_keras.runs.history import write_history
from pit_keras.runs.run_folder import RunFolder
from pit_keras.runs.trained_model import load_trained_model
from pit_keras.training.interruption import TrainingInterrupted
from pit_keras.training.schedule import warmup_cosine
from pit_keras.training.trainer import Trainer


def train(config, output_dir):
    trainer = Trainer(config, open_source(config.data.dataset), output_dir, verbose=False)
    return trainer, trainer.run()


def rows(folder):
    with RunFolder(folder).history.open(newline="") as file:
        return list(csv.DictReader(file))


def checkpoints(folder):
    """The files of the newest states, the newest last."""
    return sorted(RunFolder(folder).checkpoints.glob("step-*.npz"))


def events(folder, kind):
    """What log.jsonl says of a kind of event."""
    lines = RunFolder(folder).log.read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_tiny_config):
    """One whole run, shared by the tests that only look at it."""
    config = make_tiny_config()
    folder = tmp_path_factory.mktemp("runs") / "finished"
    trainer, results = train(config, folder)
    return config, folder, trainer, results


def test_the_run_folder_holds_what_it_should(finished):
    config, path, _, results = finished
    folder = RunFolder(path)
    assert Config.from_json(folder.config.read_text()) == config
    assert folder.read_classes() == ("0", "1", "2")
    assert json.loads(folder.results.read_text()) == results
    assert len(rows(path)) == 3
    assert list(folder.logs.rglob("events.out.tfevents.*"))
    assert [file.name for file in checkpoints(path)] == ["step-00000010.npz", "step-00000015.npz"]
    assert (folder.checkpoints / "best.npz").exists()
    assert [file.name for file in path.iterdir() if file.name.startswith(".")] == [".lock"]


def test_results_are_those_of_the_best_epoch_and_of_the_saved_model(finished):
    config, path, _, results = finished
    history = rows(path)
    best = max(range(3), key=lambda epoch: float(history[epoch]["val_top1"]))
    assert results["best_epoch"] == best
    assert results["top1"] == pytest.approx(float(history[best]["val_top1"]))
    assert results["images"] == 12
    again = evaluate_source(
        load_trained_model(path), open_source(config.data.dataset), batch_size=5, progress=False
    )
    for name in ("top1", "top5", "loss", "images"):
        assert again[name] == pytest.approx(results[name], rel=1e-5)


def test_history_is_plausible_and_ends_at_the_lowest_rate(finished):
    _config, path, trainer, _ = finished
    history = rows(path)
    assert [int(row["epoch"]) for row in history] == [0, 1, 2]
    for epoch, row in enumerate(history, 1):
        expected = warmup_cosine(
            epoch * trainer.steps, base=0.05 * 20 / 512, steps=15, warmup_steps=5
        )
        assert float(row["learning_rate"]) == pytest.approx(float(expected))
    assert float(history[-1]["loss"]) < float(history[0]["loss"])


def test_a_finished_run_is_not_touched(finished):
    config, path, _, results = finished
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    _, again = train(config, path)
    assert again == results
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_another_configuration_is_refused_and_nothing_changed(finished, make_tiny_config):
    _, path, _, _ = finished
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    config = make_tiny_config()
    config.training.seed, config.optimizer.weight_decay = 7, 0.3
    with pytest.raises(ValueError, match=r"weight_decay is 0\.05 there and 0\.3 here"):
        train(config, path)
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    finished, make_tiny_config, tmp_path
):
    config, path, trainer, _ = finished
    same, _ = train(make_tiny_config(), tmp_path / "same")
    assert rows(tmp_path / "same") == rows(path)
    for a, b in zip(trainer.model.get_weights(), same.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    config = make_tiny_config()
    config.training.seed = 1
    train(config, tmp_path / "other")
    assert rows(tmp_path / "other") != rows(path)


def test_an_unreadable_checkpoint_falls_back_to_the_one_before(
    finished, make_tiny_config, tmp_path, capsys
):
    _, path, trainer, _ = finished
    shutil.copytree(path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    folder.results.unlink()
    newest = checkpoints(folder.path)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])

    resumed, _ = train(make_tiny_config(), folder.path)

    printed = capsys.readouterr().out
    assert "step-00000015.npz cannot be read" in printed
    assert "Carrying on after epoch 1 of 3 and 5 of 5 steps." in printed
    assert folder.history.read_bytes() == RunFolder(path).history.read_bytes()
    for a, b in zip(trainer.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_log_tells_what_happened(finished):
    config, path, trainer, results = finished
    (start,) = events(path, "start")
    assert (start["step"], start["replicas"], start["jit"]) == (0, 1, False)
    assert start["parameters"] == trainer.model.count_params()
    assert [event["step"] for event in events(path, "epoch")] == [5, 10, 15]
    for event, row in zip(events(path, "epoch"), rows(path), strict=True):
        assert {name: event[name] for name in row} == {n: json.loads(v) for n, v in row.items()}
        assert event["images_per_second"] > 0
        assert 0 <= event["data_wait"] <= 1
    assert events(path, "checkpoint")[-1]["file"] == "checkpoints/step-00000015.npz"
    (end,) = events(path, "end")
    assert end["top1"] == results["top1"]
    assert len(events(path, "step")) == 15 // config.training.log_every_steps


@pytest.fixture
def unfinished(finished, tmp_path):
    """A copy of the finished run, as if it had been killed before its results were written."""
    config, path, _, results = finished
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(path, folder.path)
    folder.results.unlink()
    return config, folder, results


def contents(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def forget_last_epoch(folder):
    """Takes a finished run back to where it was before its last epoch."""
    folder.results.unlink()
    checkpoints(folder.path)[-1].unlink()


def test_a_folder_that_another_process_trains_in_is_left_alone(unfinished):
    config, folder, _ = unfinished
    with folder.locked():
        before = contents(folder.path)
        with pytest.raises(OSError, match="Another process is training in"):
            train(config, folder.path)
        assert contents(folder.path) == before


def test_lost_checkpoints_are_not_answered_by_a_silent_new_start(unfinished):
    config, folder, _ = unfinished
    shutil.rmtree(folder.checkpoints)
    before = contents(folder.path)
    with pytest.raises(FileNotFoundError, match=r"epochs were done, but .*checkpoints holds no"):
        train(config, folder.path)
    assert {p: c for p, c in contents(folder.path).items() if p.name != ".lock"} == {
        p: c for p, c in before.items() if p.name != ".lock"
    }


@pytest.mark.parametrize("is_finished", [False, True])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_lost_model_is_written_anew(damage, is_finished, unfinished, finished, capsys):
    config, folder, results = unfinished
    whole = folder.model.read_bytes()
    folder.model.unlink() if damage == "missing" else folder.model.write_bytes(whole[:5000])
    if is_finished:
        folder.results.write_text(json.dumps(results))

    _, again = train(config, folder.path)

    printed = capsys.readouterr().out
    assert ("is missing" if damage == "missing" else "model.keras cannot be read") in printed
    assert "model.keras is written anew from the checkpoint of the best epoch" in printed
    assert again == pytest.approx(results) if is_finished else again["top1"] == results["top1"]
    best, mended = (keras.models.load_model(p / "model.keras") for p in (finished[1], folder.path))
    for a, b in zip(best.get_weights(), mended.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_that_cannot_be_written_anew(unfinished):
    config, folder, _ = unfinished
    folder.model.unlink()
    (folder.checkpoints / "best.npz").unlink()
    with pytest.raises(FileNotFoundError, match="is lost, and so is the best epoch's checkpoint"):
        train(config, folder.path)


@pytest.mark.parametrize("lost", ["history", "config"])
def test_a_lost_history_or_configuration_is_written_anew(lost, unfinished, finished):
    config, folder, results = unfinished
    getattr(folder, lost).unlink()
    _, again = train(config, folder.path)
    assert again == results
    for name in ("history", "config"):
        whole = getattr(RunFolder(finished[1]), name)
        assert getattr(folder, name).read_bytes() == whole.read_bytes()


def test_checkpoints_of_another_run_are_left_alone(unfinished):
    config, folder, _ = unfinished
    config = copy.deepcopy(config)
    config.training.epochs, config.training.log_every_steps = 2, 7
    folder.config.write_text(config.to_json())
    before = [path.read_bytes() for path in checkpoints(folder.path)]

    with pytest.raises(OSError, match=r"not of this run: training.epochs is 3 there and 2 here\."):
        train(config, folder.path)

    assert not folder.finished
    assert [path.read_bytes() for path in checkpoints(folder.path)] == before


def test_fine_tuning_keeps_frozen_stages_and_carries_on_without_the_weights_file(
    make_tiny_config, tmp_path
):
    """Compiled, on a mirrored strategy, with layer-wise rates."""
    config, folder = make_tiny_config(), RunFolder(tmp_path / "run")
    config.training.epochs, config.optimizer.warmup_epochs = 2, 0.0
    config.training.jit, config.training.distribute = "on", "mirrored"
    sizes = {name: getattr(config.model, name) for name in ("patch_size", "stride", "head_dim")}
    start = create_model("pit_ti", classes=3, input_shape=(24, 24, 3), depths=(1, 1, 1), **sizes)
    weights = tmp_path / "start.weights.h5"
    start.save_weights(weights)
    config.model.weights, config.model.frozen_stages = str(weights), 2
    config.optimizer.layer_decay = 0.5

    trainer, _ = train(config, folder.path)

    saved = keras.models.load_model(folder.model)
    assert all(layer.trainable for layer in saved.layers)
    changed = {
        layer.name
        for layer in saved.layers
        for a, b in zip(layer.weights, start.get_layer(layer.name).weights, strict=True)
        if not np.array_equal(a.numpy(), b.numpy())
    }
    assert changed == {"pooling2", "stage3_block1", "norm", "head"}

    history, results = rows(folder.path), json.loads(folder.results.read_text())
    forget_last_epoch(folder)
    weights.unlink()
    again, _ = train(config, folder.path)

    assert rows(folder.path) == history
    assert json.loads(folder.results.read_text()) == results
    for a, b in zip(trainer.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "values",
    [
        {"training.precision": "mixed_bfloat16"},
        {"training.precision": "mixed_float16", "training.distribute": "mirrored"},
        {
            "training.accumulate": 2,
            "training.recompute_blocks": True,
            "training.label_smoothing": 0.1,
            "model.name": "pit_ti_distilled",
        },
        {"model.name": "vit_ti"},
        {"model.name": "resnet50"},
    ],
)
def test_every_kind_of_run_learns(values, make_tiny_config, tmp_path):
    config = make_tiny_config()
    config.data.cutmix_alpha, config.data.flip, config.data.crop_scale = 0.0, False, (0.8, 1.0)
    config.training.epochs = 6
    for path, value in values.items():
        set_field(config, path, value)
    if config.model.name == "vit_ti":
        # Its weights begin much smaller than PiT's.
        config.model.depths, config.model.head_dim = None, 16
        config.training.epochs = 12
    if config.model.name == "resnet50":
        config.model.patch_size = config.model.stride = config.model.head_dim = None
        config.model.depths, config.model.base_width = (1, 1, 1, 1), 4
    try:
        train(config, tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    losses = [float(row["loss"]) for row in rows(tmp_path)]
    assert losses[-1] < 0.9 * losses[0]
    model = keras.models.load_model(tmp_path / "model.keras")
    assert np.isfinite(model(np.zeros((1, 24, 24, 3), "float32"))).all()


def test_precision_and_step_compilation_agree_with_plain_float32(make_tiny_config, tmp_path):
    """The first epoch's loss: compiled to float32's rounding, in bfloat16 to its own."""
    losses = {}
    for name, settings in {
        "plain": {},
        "compiled": {"jit": "on"},
        "half": {"precision": "mixed_bfloat16"},
    }.items():
        config = make_tiny_config()
        config.model.drop_path_rate = 0.0
        config.training.epochs, config.optimizer.warmup_epochs = 1, 0.0
        for field, value in settings.items():
            setattr(config.training, field, value)
        try:
            train(config, tmp_path / name)
        finally:
            keras.config.set_dtype_policy("float32")
        losses[name] = float(rows(tmp_path / name)[0]["loss"])
    assert losses["compiled"] == pytest.approx(losses["plain"], rel=1e-4)
    assert losses["half"] == pytest.approx(losses["plain"], rel=2e-2)


@pytest.fixture
def config_with_val(make_tiny_config, digit_folder, tmp_path):
    """A run of two epochs on a folder with a val part of its own."""
    for split in ("train", "val"):
        shutil.copytree(digit_folder, tmp_path / "data" / split)
    config = make_tiny_config()
    config.data.dataset = f"folder:{tmp_path}/data"
    config.training.epochs, config.optimizer.warmup_epochs = 2, 0.0
    return config


def test_broken_training_images_are_skipped_and_counted_the_same_after_a_restart(
    config_with_val, tmp_path, caplog
):
    for name in ("0/03.png", "1/05.png"):
        broken = tmp_path / "data/train" / name
        broken.write_bytes(broken.read_bytes()[:60])
    config_with_val.training.checkpoint_every_steps = 6  # an epoch
    folder = RunFolder(tmp_path / "run")

    _, results = train(config_with_val, folder.path)

    assert results["unreadable_images"] == 2
    assert "train/1/05.png" in caplog.text
    assert "train/1/05.png" in folder.unreadable.read_text()
    history = rows(folder.path)
    assert all(row["unreadable_images"] == "2" for row in history)

    for name in ("0/03.png", "1/05.png"):  # mended: they are not met a second time
        shutil.copy(tmp_path / "data/val" / name, tmp_path / "data/train" / name)
    forget_last_epoch(folder)
    _, again = train(config_with_val, folder.path)

    assert [row["unreadable_images"] for row in rows(folder.path)] == ["2", "0"]
    assert again["unreadable_images"] == 2


def test_a_broken_validation_image_is_named_before_a_folder_is_made(config_with_val, tmp_path):
    (tmp_path / "data/val/2/07.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"val/2/07.png cannot be read"):
        train(config_with_val, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"notes.txt": "mine"}, ValueError, "holds files but no run"),
        ({"config.json": "[1]"}, ValueError, "is not a run's configuration"),
        ({"config.json": "{"}, ValueError, "is not a run's configuration"),
        ({"config.json": '{"speed": 1}'}, ValueError, "'speed'"),
        ({"config.json": "{}"}, ValueError, "it lacks recipe, model.name, model.weights"),
    ],
)
def test_folders_that_are_no_run_are_left_alone(
    content, error, message, make_tiny_config, tmp_path
):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message):
        train(make_tiny_config(), tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == content


def test_an_output_folder_that_cannot_be_made(make_tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file; --output_dir must be a folder"):
        train(make_tiny_config(), tmp_path / "file")
    with pytest.raises(OSError, match="cannot be written to"):
        train(make_tiny_config(), tmp_path / "file/run")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.name", "pit_m", "Unknown model 'pit_m'. Did you mean"),
        ("data.image_size", (3, 3), "smaller than one patch"),
        ("training.batch_size", 1000, r"\(--batch_size\) must be between 1 and the 108 training"),
    ],
)
def test_what_does_not_fit_is_told_before_a_folder_is_made(
    path, value, message, make_tiny_config, tmp_path
):
    config = make_tiny_config()
    parent, name = path.split(".")
    setattr(getattr(config, parent), name, value)
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_history_is_what_its_rows_say(tmp_path):
    history = tmp_path / "history.csv"
    write_history(history, [])  # there is none yet
    write_history(history, [{"epoch": 0, "loss": 0.1 + 0.2}, {"epoch": 1, "loss": 2.0}])
    assert history.read_text() == "epoch,loss\n0,0.30000000000000004\n1,2.0\n"
    write_history(history, [])
    assert not history.exists()


def test_a_broken_validation_image_that_the_first_look_missed(config_with_val, tmp_path):
    class Unlooked(Trainer):
        def _train_epoch(self, batches):
            super()._train_epoch(batches)
            broken.write_bytes(b"not an image")

    broken = tmp_path / "data/val/2/07.png"
    whole, folder = broken.read_bytes(), RunFolder(tmp_path / "run")
    source = open_source(config_with_val.data.dataset)
    with pytest.raises(ValueError, match=r"val/2/07.png .* It is a validation image, .* is saved"):
        Unlooked(config_with_val, source, folder.path, verbose=False).run()
    broken.write_bytes(whole)
    _, results = train(config_with_val, folder.path)
    train(config_with_val, tmp_path / "undisturbed")
    assert json.loads((tmp_path / "undisturbed/results.json").read_text()) == results


def test_what_is_never_reached_or_too_much_is_told_before_a_folder_is_made(
    make_tiny_config, tmp_path
):
    config = make_tiny_config()
    source = open_source(config.data.dataset)
    with pytest.raises(ValueError, match=r"--profile=15:17 is never reached: the run has 15 steps"):
        Trainer(config, source, tmp_path / "run", verbose=False, profile=(15, 17))
    config.training.accumulate = 9
    with pytest.raises(ValueError, match=r"--accumulate=9 batches of 20 are 180 images, more than"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_killed_while_its_first_epoch_was_saved_begins_anew(
    finished, make_tiny_config, tmp_path, capsys
):
    _, path, _, _ = finished
    folder = RunFolder(tmp_path)
    folder.create(make_tiny_config(), ("0", "1", "2"))
    folder.history.write_text("".join(RunFolder(path).history.open(newline="").readlines()[:2]))
    train(make_tiny_config(), tmp_path)
    assert "Nothing of the run in" in capsys.readouterr().out
    assert rows(tmp_path) == rows(path)


def test_a_signal_during_an_evaluation_saves_the_epoch_that_was_trained(
    finished, make_tiny_config, tmp_path
):
    class Signalled(Trainer):
        def _evaluate(self, can_stop=False):
            os.kill(os.getpid(), signal.SIGTERM)
            return super()._evaluate(can_stop)

    config, folder = make_tiny_config(), RunFolder(tmp_path)
    with pytest.raises(TrainingInterrupted, match="after 5 of 5 steps of epoch 1 of 3"):
        Signalled(config, open_source(config.data.dataset), tmp_path, verbose=False).run()
    assert not folder.history.exists()
    (interrupted,) = events(tmp_path, "interrupted")
    assert (interrupted["step"], interrupted["signal"]) == (5, "SIGTERM")

    train(config, tmp_path)

    assert folder.history.read_bytes() == RunFolder(finished[1]).history.read_bytes()


def test_saving_by_minutes_and_by_steps(make_tiny_config, tmp_path):
    config = make_tiny_config()
    config.training.epochs, config.optimizer.warmup_epochs = 1, 0.0
    config.training.checkpoint_every_steps, config.training.keep_checkpoints = None, 4
    config.training.checkpoint_every_minutes = 1e-9
    train(config, tmp_path)
    assert {event["step"] for event in events(tmp_path, "checkpoint")} >= {1, 2, 3, 4, 5}
    assert [path.name for path in checkpoints(tmp_path)] == [
        f"step-0000000{step}.npz" for step in (2, 3, 4, 5)
    ]


def test_a_loss_scale_that_is_used_up_stops_the_run(make_tiny_config, tmp_path):
    config = make_tiny_config()
    config.training.precision = "mixed_float16"
    try:
        trainer = Trainer(config, open_source(config.data.dataset), tmp_path, verbose=False)
        trainer.optimizer.dynamic_scale.assign(2.0**-15)
        with pytest.raises(FloatingPointError, match=r"overflow float16 .* --precision=mixed_bfl"):
            trainer.run()
    finally:
        keras.config.set_dtype_policy("float32")
    assert RunFolder(tmp_path).not_finite.exists()


def diverge_after(config, epochs):
    """Makes a trainer of `config` whose loss is not finite once so many epochs are done."""

    class Diverging(Trainer):
        def _train_batches(self, **share):
            batches = super()._train_batches(**share)
            skipped = epochs * self.steps
            return batches.enumerate().map(
                lambda step, batch: {
                    **batch,
                    "image": batch["image"] * tf.where(step < skipped, 1.0, math.nan),
                }
            )

    return lambda folder: Diverging(config, open_source(config.data.dataset), folder, verbose=False)


def test_a_loss_that_is_not_finite_stops_the_run(make_tiny_config, tmp_path):
    config, folder = make_tiny_config(), RunFolder(tmp_path)
    trainer = diverge_after(config, 1)(tmp_path)

    with pytest.raises(FloatingPointError) as stopped:
        trainer.run()

    message = str(stopped.value)
    assert "The loss is not finite at step 1 of 5 in epoch 2." in message
    assert f"{folder.checkpoints / 'step-00000005.npz'}; the same command carries on" in message
    assert f"20 examples are listed in {folder.not_finite}" in message
    with folder.not_finite.open(newline="") as file:
        examples = list(csv.DictReader(file))
    (sixth,) = train_batches(trainer.source, config.data, batch_size=20, seed=0, start=100).take(1)
    assert [int(row["id"]) for row in examples] == sixth["id"].numpy().tolist()
    assert all(row["image"].startswith(config.data.dataset[7:]) for row in examples)
    assert not folder.finished
    train(config, tmp_path)  # carries on
    assert folder.finished


def test_a_loss_that_is_not_finite_in_the_first_epoch(make_tiny_config, tmp_path):
    with pytest.raises(
        FloatingPointError, match="Nothing was saved before; the same command begins"
    ):
        diverge_after(make_tiny_config(), 0)(tmp_path).run()


@pytest.fixture(scope="module")
def make_distilling_config(finished, make_tiny_config):
    """As `make_tiny_config`, of a student that averages its weights and that the run teaches."""

    def make():
        config = make_tiny_config()
        config.model.name = "pit_ti_distilled"
        config.distillation.kind, config.distillation.teacher = "hard", str(finished[1])
        config.training.ema_decay = 0.99
        return config

    return make


@pytest.fixture(scope="module")
def distilled(make_distilling_config, tmp_path_factory):
    config = make_distilling_config()
    folder = tmp_path_factory.mktemp("runs") / "distilled"
    return config, folder, *train(config, folder)


@pytest.mark.parametrize(("rate", "better"), [(0.005, "raw"), (1.0, "averaged")])
def test_the_better_of_raw_and_averaged_weights_is_kept_and_both_are_told(
    rate, better, make_tiny_config, tmp_path
):
    config = make_tiny_config()
    config.training.ema_decay, config.optimizer.learning_rate = 0.99, rate
    _, results = train(config, tmp_path)
    best = rows(tmp_path)[results["best_epoch"]]
    assert results["weights"] == better
    assert results["top1"] == max(results[kind]["top1"] for kind in ("raw", "averaged"))
    for kind, column in (("raw", "val_"), ("averaged", "val_averaged_")):
        assert results[kind]["top1"] == pytest.approx(float(best[f"{column}top1"]))
        assert results[kind]["loss"] == pytest.approx(float(best[f"{column}loss"]), rel=1e-5)
    assert results["raw"]["loss"] != pytest.approx(results["averaged"]["loss"], rel=1e-3)
    again = evaluate_source(
        load_trained_model(tmp_path), open_source(config.data.dataset), batch_size=5, progress=False
    )
    assert again["loss"] == pytest.approx(results["loss"], rel=1e-5)
    assert again["loss"] == pytest.approx(results[better]["loss"], rel=1e-5)


def test_distillation_reports_both_parts_of_its_loss(distilled):
    for row in rows(distilled[1]):
        parts = [float(row[name]) for name in ("class_loss", "distillation_loss")]
        assert float(row["loss"]) == pytest.approx(sum(parts) / 2, rel=1e-5)


def test_the_teacher_is_not_saved(distilled):
    _, path, trainer, _ = distilled
    size = sum(weight.numpy().nbytes for weight in trainer.model.weights)
    folder = RunFolder(path)
    saved = keras.models.load_model(folder.model)
    assert [w.shape for w in saved.weights] == [w.shape for w in trainer.model.weights]
    with np.load(checkpoints(path)[-1]) as arrays:
        stored = sum(arrays[name].nbytes for name in arrays.files if "/" in name)
    # Weights, two moments and the average; of the teacher there is no room for a half.
    assert 4 * size <= stored < 4.5 * size


def test_a_distilling_run_that_was_cut_short_ends_as_it_would_have(
    distilled, make_distilling_config, tmp_path
):
    _, path, trainer, results = distilled
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(path, folder.path)
    forget_last_epoch(folder)

    resumed, again = train(make_distilling_config(), folder.path)

    assert rows(folder.path) == rows(path)
    assert again == results
    for a, b in zip(trainer.average.variables, resumed.average.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_lost_model_of_averaged_weights_is_written_anew(distilled, tmp_path):
    config, path, _, results = distilled
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(path, folder.path)
    folder.model.unlink()
    assert train(config, folder.path)[1] == results
    weights = [
        keras.models.load_model(p / "model.keras").get_weights() for p in (path, folder.path)
    ]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "teacher", "message"),
    [
        ("pit_ti", None, "distillation needs a model whose name ends in '_distilled'"),
        ("pit_ti_distilled", "nothing", "'nothing' is neither a model's name"),
    ],
)
def test_distillation_without_a_student_or_teacher_is_told_before_a_folder_is_made(
    name, teacher, message, make_distilling_config, tmp_path
):
    config = make_distilling_config()
    config.model.name = name
    config.distillation.teacher = teacher or config.distillation.teacher
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
