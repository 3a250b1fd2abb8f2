"""Runs that meet images that cannot be read, and losses that are not finite."""

import csv
import math
import shutil

import keras
import numpy as np
import pytest
from whole_runs import checkpoints, forget_last_epoch, rows, train, trainer_of

from pit_keras.data.pipeline import train_batches
from pit_keras.runs.checkpoints import read_arrays
from pit_keras.runs.run_folder import RunFolder
from pit_keras.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("eager_functions")


def test_broken_training_images_are_skipped_and_counted_the_same_after_a_restart(
    make_tiny_config, digit_folder, tmp_path, caplog
):
    shutil.copytree(digit_folder, tmp_path / "data/train")
    few = shutil.ignore_patterns("0[1-9].png", "1?.png")
    shutil.copytree(digit_folder, tmp_path / "data/val", ignore=few)
    for name in ("0/03.png", "1/05.png"):
        broken = tmp_path / "data/train" / name
        broken.write_bytes(broken.read_bytes()[:60])
    config, folder = make_tiny_config(), RunFolder(tmp_path / "run")
    config.data.dataset = f"folder:{tmp_path}/data"
    config.training.epochs, config.optimizer.warmup_epochs = 2, 0.0
    config.training.batch_size = 30  # with which an epoch leaves no image out
    config.training.checkpoint_every_steps = 2  # an epoch
    config.training.ema_decay = 0.0

    _, results = train(config, folder.path)

    assert results["unreadable_images"] == 2
    assert "train/1/05.png" in caplog.text
    assert "train/1/05.png" in folder.unreadable.read_text()
    history = rows(folder.path)
    assert all(row["unreadable_images"] == "2" for row in history)

    for name in ("0/03.png", "1/05.png"):  # mended: they are not met a second time
        shutil.copy(digit_folder / name, tmp_path / "data/train" / name)
    forget_last_epoch(folder.path)
    _, again = train(config, folder.path)

    assert [row["unreadable_images"] for row in rows(folder.path)] == ["2", "0"]
    assert again["unreadable_images"] == 2


class Diverging(Trainer):
    """Its images are not finite."""

    def _train_batches(self, **share):
        batches = super()._train_batches(**share)
        return batches.map(lambda batch: {**batch, "image": batch["image"] * math.nan})


def test_a_loss_that_is_not_finite_stops_the_run(before_last_epoch):
    config, folder = before_last_epoch
    kept = folder.checkpoints / "step-00000002.npz"
    trainer = trainer_of(config, folder.path, Diverging)

    with pytest.raises(FloatingPointError) as stopped:
        trainer.run()

    message = str(stopped.value)
    assert "The loss is not finite at step 1 of 2 in epoch 2." in message
    assert f"the last checkpoint is {kept}" in message
    assert f"27 examples are listed in {folder.not_finite}" in message
    with folder.not_finite.open(newline="") as file:
        examples = list(csv.DictReader(file))
    batches = train_batches(trainer.source, config.data, batch_size=27, seed=0, start=2 * 27)
    third = next(iter(batches))
    assert [int(row["id"]) for row in examples] == third["id"].numpy().tolist()
    assert all(row["image"].startswith(config.data.dataset[7:]) for row in examples)
    assert not folder.finished
    # Other tests carry on from such a checkpoint.
    assert checkpoints(folder.path) == [kept]
    arrays = read_arrays(kept)
    assert all(np.isfinite(values).all() for name, values in arrays.items() if "/" in name)


def test_a_loss_scale_that_is_used_up_stops_the_run(make_tiny_config, tmp_path):
    config = make_tiny_config()
    config.training.precision = "mixed_float16"
    try:
        trainer = trainer_of(config, tmp_path)
        trainer.optimizer.dynamic_scale.assign(2.0**-15)
        with pytest.raises(FloatingPointError) as stopped:
            trainer.run()
    finally:
        keras.config.set_dtype_policy("float32")
    message = str(stopped.value)
    assert "overflow float16" in message
    assert "--precision=mixed_bfloat16" in message
    assert "nothing was saved" in message
    assert RunFolder(tmp_path).not_finite.exists()
