"""`pit-keras plan`: its flags, the folders it refuses, and what it prints.

What it measures is tested in `tests/measure/test_training_plan.py`.
"""

import csv
import re
import shlex

import forked
import numpy as np
import pytest
from absl import flags
from PIL import Image

from pit_keras.commands import plan
from pit_keras.commands.training_flags import config_from_flags, parse_training_flags
from pit_keras.measure import training_plan

COLUMNS = (
    *("images", "data_set", "model", "weights", "recipe"),
    *("epochs", "top1", "hours", "processor", "source"),
)
TINY = (
    "--recipe=vanilla",
    "--image_size=16",
    "--batch_size=4",
    "--epochs=2",
    "--jit=off",
    "--config.model.patch_size=4",
    "--config.model.stride=4",
    "--config.model.head_dim=4",
    "--config.model.depth=1",
    "--config.optimizer.name=adamw",
    "--config.optimizer.warmup_epochs=0",
    "--config.data.crop_scale=(0.6,1.0)",
)


def folder_of(path, **classes):
    """A folder with so many images of each class."""
    path.mkdir(exist_ok=True)
    for name, count in classes.items():
        (path / name).mkdir()
        for number in range(count):
            pixels = np.full((96, 96, 3), 20 * number, np.uint8)
            Image.fromarray(pixels).save(path / name / f"{number}.png")
    return path


def parsed(*arguments):
    values = flags.FlagValues()
    plan.parse_defined(["plan", *map(str, arguments)], values)
    return values


def plan_of(*arguments):
    """What the command does in a process of its own."""
    words = ["plan", *map(str, arguments)]
    return forked.run_code(f"from pit_keras.cli import main; main({words!r})")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give one folder of images"),
        (["photos", "--models="], "^--models must name at least one model"),
        (["photos", "more"], "Give one folder of images"),
        (["photos", "--model=pit_s"], "^--model has no meaning for a plan"),
        (["photos", "--output_dir=runs"], "^--output_dir has no meaning for a plan"),
        (["photos", "--epoch=3"], "Unknown command line flag 'epoch'"),
    ],
)
def test_wrong_flags_are_one_sentence(arguments, message):
    with pytest.raises(flags.Error, match=message):
        parsed(*arguments)


@pytest.mark.parametrize(
    ("classes", "arguments", "message"),
    [
        ({}, (), "holds no class folders"),
        ({"cat": 0, "dog": 0}, (), "No PNG or JPEG images in .* for 'cat', 'dog'"),
        ({"cat": 3}, (), "holds only the class cat; it needs at least two"),
        ({"cat": 1, "dog": 3}, (), "a single image for 'cat'"),
        (
            {"cat": 3, "dog": 3},
            ("--batch_size=32",),
            r"\(--batch_size\) must be between 1 and the 4",
        ),
        (None, (), "There is no folder .*photos"),
        ({"cat": 3, "dog": 3}, ("--models=pit_x",), "No model matches 'pit_x'"),
        ({"cat": 3, "dog": 3}, ("--models=detr_pit_s",), "is a detector, which is trained with"),
        ({"cat": 3, "dog": 3}, ("--weights=lost.keras",), "lost.keras"),
        ({"cat": 3, "dog": 3}, ("--distribute=multi_worker",), "must be none or mirrored"),
    ],
)
def test_what_cannot_be_trained_is_refused(classes, arguments, message, tmp_path):
    path = tmp_path / "photos"
    if classes is not None:
        folder_of(path, **classes)
    values = parsed(path, "--weights=none", "--batch_size=2", *arguments)
    with pytest.raises((ValueError, OSError), match=message):
        plan.suited(plan.configs_of(values), values)


@pytest.mark.parametrize(("weights", "epochs"), [("none", 120), ("own.keras", 50)])
def test_the_recipe_follows_the_images_and_the_weights(weights, epochs, tmp_path):
    (tmp_path / "own.keras").write_bytes(b"")  # only looked for
    photos = folder_of(tmp_path / "photos", cat=12, dog=12)
    weights = weights if weights == "none" else tmp_path / weights
    values = parsed(photos, "--models=pit_ti,pit_s", f"--weights={weights}")
    configs, sizes = plan.suited(plan.configs_of(values), values)
    assert [config.model.name for config in configs] == ["pit_ti", "pit_s"]
    assert sizes == {"train": 22, "val": 2}
    for config in configs:
        assert (config.recipe, config.training.batch_size) == ("photos", 4)
        assert config.training.epochs == epochs


def test_what_is_refused_is_one_sentence(tmp_path):
    found = plan_of(folder_of(tmp_path / "photos", cat=3))
    assert (found.returncode, found.stdout) == (1, "")
    last = found.stderr.splitlines()[-1]
    assert re.fullmatch("error: .* holds only the class cat; it needs at least two.", last)
    assert "Traceback" not in found.stderr


def test_a_plan_is_a_table_and_commands_that_train_what_was_measured(tmp_path):
    photos = folder_of(tmp_path / "my photos", cat=12, dog=12)
    written = tmp_path / "plan.csv"
    found = plan_of(photos, "--models=vit_ti", *TINY, f"--csv={written}")
    assert found.returncode == 0, found.stderr
    (row,) = csv.DictReader(written.read_text().splitlines())
    assert (row["model"], row["train_images"], row["val_images"]) == ("vit_ti", "22", "2")
    assert float(row["hours_from"]) <= float(row["hours"]) <= float(row["hours_to"])
    assert float(row["memory_gib"]) > 0
    assert "vit_ti" in found.stdout
    assert row["machine"] in found.stdout.replace("\n", " ")
    (line,) = [line for line in found.stdout.splitlines() if "pit-keras train" in line]
    assert shlex.split(line) == plan.command_of("vit_ti", parsed(photos, *TINY))


@pytest.mark.parametrize("own", [(), ("--noconfig.data.flip", "--seed=3", "--recipe=cutmix")])
def test_the_command_trains_as_the_plan_says(own):
    values = parsed("some photos", *TINY[1:], *own)
    program, command, *words = plan.command_of("vit_ti", values)
    assert (program, command) == ("pit-keras", "train")
    trained = flags.FlagValues()
    parse_training_flags([command, *words], trained)
    assert config_from_flags(trained) == config_from_flags(values, "vit_ti")
    assert trained.output_dir == "runs/some photos_vit_ti"
    assert trained.dataset == "folder:some photos"


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (0.0005, "1.8 s"),
        (0.02, "72 s"),
        (0.05, "3.0 min"),
        (1.25, "75 min"),
        (1.6, "1.6 h"),
        (40, "40 h"),
        (60, "2.5 days"),
    ],
)
def test_a_time_in_words(hours, words):
    assert plan.in_words(hours) == words


def test_accuracy_is_that_of_published_runs_or_none(tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.csv"
    columns = ",".join(COLUMNS)
    monkeypatch.setattr(training_plan, "RESULTS", path)
    path.write_text(columns + "\n")
    plan.print_accuracy(100)
    assert "No run of this project" in capsys.readouterr().out
    cells = {"images": "1500", "data_set": "digits", "model": "pit_ti", "weights": "none"}
    row = ",".join({**cells, "top1": "0.912", "hours": "0.5"}.get(name, "") for name in COLUMNS)
    path.write_text(f"{columns}\n{row}\n")
    plan.print_accuracy(1000)
    assert (
        "91.2% from 1,500 images of digits; pit_ti, weights none, 0.5 h\n"
        in capsys.readouterr().out
    )


def test_the_published_runs_can_be_read():
    with training_plan.RESULTS.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == list(COLUMNS)
        for row in reader:
            assert row["source"]
            assert int(row["images"]) > 0
            assert 0 < float(row["top1"]) <= 1
            assert row["hours"] == "" or float(row["hours"]) > 0
