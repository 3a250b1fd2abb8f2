"""Whole runs of a detector, in this process, in another one, and on two workers."""

import json
import pathlib
import shutil
import signal

import detection_runs
import forked
import keras
import numpy as np
import pytest
import runs
from PIL import Image
from steps import path_of
from tolerances import assert_close
from whole_runs import checkpoints, contents, eagerly, events, forget_last_epoch, rows, train

from pit_keras.config.fields import Config
from pit_keras.create import create_model
from pit_keras.plots.galleries import TRUE_COLOR
from pit_keras.runs.run_folder import RunFolder
from pit_keras.runs.trained_detector import load_trained_detector
from pit_keras.training.preview import draw_preview
from pit_keras.training.tasks import open_source_of

DETECT = pathlib.Path(__file__).parents[2] / "train/detect.py"
COCO_NAMES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return detection_runs.write_data(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data):
    """One whole run, with averaged weights."""
    config = detection_runs.make_config(data, training__ema_decay=0.9)
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return config, folder, *train(config, folder)


def test_the_run_folder_holds_what_it_should(finished):
    config, path, _, results = finished
    folder = RunFolder(path)
    assert Config.from_json(folder.config.read_text()) == config
    assert folder.classes.read_text() == "red\ngreen\nblue\n"
    assert folder.categories.read_text() == "2\n5\n11\n"
    assert json.loads(folder.results.read_text()) == results
    assert set(COCO_NAMES) <= set(results)
    assert (results["images"], results["model"], results["epochs"]) == (6, "detr_vit_s", 2)
    assert (results["dataset"], results["image_size"]) == (config.data.dataset, [32, 48])
    history = rows(path)
    for prefix in ("val_", "val_averaged_"):
        assert {prefix + name for name in COCO_NAMES} <= set(history[0])
    assert {"loss", "class_loss", "l1_loss", "giou_loss"} <= set(history[0])
    best = [max(float(row["val_AP"]), float(row["val_averaged_AP"])) for row in history]
    # While nothing is found the last epoch is the best one.
    assert results["best_epoch"] == (best.index(max(best)) + 1 if max(best) else len(best))
    assert results["AP"] == pytest.approx(max(best))
    assert events(path, "start")[0]["jit"] is False


def test_the_saved_model_is_a_detector_for_any_size(finished):
    trained = load_trained_detector(finished[1])
    assert trained.class_names == ("red", "green", "blue")
    assert trained.model.input_shape == (None, None, None, 3)
    assert all(layer.trainable for layer in trained.model.layers)


def test_a_finished_run_is_not_touched(finished):
    config, path, _, results = finished
    before = contents(path)
    assert train(config, path)[1] == results
    assert contents(path) == before


def test_a_run_is_not_carried_on_with_fewer_training_images(finished, data, tmp_path):
    config, path, *_ = finished
    shutil.copytree(path, tmp_path / "run")
    (tmp_path / "run/results.json").unlink()
    annotations = data / "train.json"
    before = annotations.read_text()
    content = json.loads(before)
    lost = content["images"].pop()["id"]
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] != lost]
    annotations.write_text(json.dumps(content))
    try:
        with pytest.raises(OSError, match="it has 24 training images, the data 23"):
            train(config, tmp_path / "run")
    finally:
        annotations.write_text(before)


def flags(config, folder, *more):
    """The command line of a configuration of `make_config`."""
    model = {name: value for name, value in vars(config.model).items() if value is not None}
    overrides = [
        f"--config.model.{name}={str(value).replace(' ', '')}"
        for name, value in model.items()
        if name != "name" and not isinstance(value, bool)
    ]
    return [
        f"--model={config.model.name}",
        "--weights=none",
        f"--dataset={config.data.dataset}",
        "--image_size=32,48",
        "--batch_size=8",
        f"--epochs={config.training.epochs}",
        "--config.detection.multi_scale=false",
        "--config.detection.random_crop=false",
        f"--config.optimizer.learning_rate={config.optimizer.learning_rate}",
        f"--config.training.ema_decay={config.training.ema_decay}",
        *overrides,
        f"--output_dir={folder}",
        *more,
    ]


def assert_carried_on(finished, folder, log, *more):
    """The script carries on what is in a folder, to the end of the run of this process."""
    config, path, *_ = finished
    process = forked.start_script(DETECT, flags(config, folder, *more), log)
    assert runs.finish(process, log) == 0, log.read_text()
    printed = log.read_text()
    assert "Resuming" in printed
    assert "Best: epoch" in printed
    ours, theirs = (
        # The weights' files have names in them that Keras counts up in each process.
        {name: content for name, content in runs.outcome(run).items() if "weights" not in name}
        for run in (folder, path)
    )
    assert ours == theirs
    for name in ("model.keras", "checkpoints/best.npz"):
        assert (folder / name).exists()
    models = [keras.models.load_model(run / "model.keras") for run in (folder, path)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    assert RunFolder(folder).curves.exists()


def test_the_script_carries_on_what_another_process_began(finished, tmp_path):
    folder = shutil.copytree(finished[1], tmp_path / "run")
    forget_last_epoch(folder)
    assert_carried_on(finished, folder, tmp_path / "log.txt")


@pytest.mark.slow
def test_a_killed_run_of_the_script_is_carried_on(finished, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log.txt"
    often = "--checkpoint_every_steps=1"
    process = forked.start_script(DETECT, flags(finished[0], folder, often), log)
    assert runs.stop_after(process, log, folder, 2, 0.0) == -signal.SIGKILL, log.read_text()
    assert_carried_on(finished, folder, log, often)


def test_two_workers_do_what_one_process_does(data, tmp_path):
    """Each step on its own: the weights hardly move, for AdamW makes much of their rounding."""
    config = detection_runs.make_config(data, model__dropout=0.0, training__epochs=1)
    config.optimizer.learning_rate = 1e-12
    alone, together, unused = (tmp_path / name for name in ("alone", "together", "unused"))
    known = ",".join(runs.addresses())
    started = []
    for index, folder in enumerate((together, unused)):
        workers = ("--distribute=multi_worker", f"--workers={known}", f"--worker={index}")
        log = tmp_path / f"log{index}.txt"
        started.append((forked.start_script(DETECT, flags(config, folder, *workers), log), log))
    with eagerly():
        trainer, expected = train(config, alone)
    for process, log in started:
        assert runs.finish(process, log) == 0, log.read_text()
    assert not unused.exists()
    (ours,), (theirs,) = rows(together), rows(alone)
    for name in ("loss", "class_loss", "l1_loss", "giou_loss", "gradient_norm"):
        assert_close(float(ours[name]), float(theirs[name]), roundings=path_of(trainer.model))
    results = json.loads((together / "results.json").read_text())
    # Counted from what both workers answered, without what fills up their batches.
    assert results["images"] == expected["images"] == 6


@pytest.mark.parametrize("is_eager", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_run_in_half_precision_from_a_classifiers_weights(is_eager, data, tmp_path):
    config = detection_runs.make_config(data, "detr_pit_s", training__precision="mixed_bfloat16")
    config.training.epochs, config.training.batch_size = 1, 24  # one step
    config.training.eval_batch_size = 6
    sizes = detection_runs.BACKBONES["detr_pit_s"]
    start = create_model("pit_s", classes=7, input_shape=(32, 48, 3), **sizes)
    (tmp_path / "start").mkdir()
    start.save(tmp_path / "start/model.keras")
    config.model.weights = str(tmp_path / "start")
    config.model.frozen_stages = 1
    try:
        with eagerly(is_eager):
            trainer, _ = train(config, tmp_path / "run")
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(float(rows(tmp_path / "run")[0]["loss"]))
    for name, is_same in (("stage1_block1", True), ("stage2_block1", False)):
        models = (start, trainer.model)
        pairs = zip(*(model.get_layer(name).weights for model in models), strict=True)
        assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs) == is_same
    assert len(checkpoints(tmp_path / "run")) == 1


def test_a_preview_shows_boxes(data, tmp_path):
    config = detection_runs.make_config(data)
    path = draw_preview(config, open_source_of(config), 1, tmp_path / "run")
    assert [file.name for file in path.parent.iterdir()] == ["preview.png"]
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert (np.abs(pixels - TRUE_COLOR).max(axis=-1) < 10).any()  # no object is of this colour
