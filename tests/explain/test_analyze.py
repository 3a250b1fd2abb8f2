"""The script from flags to files."""

import csv
import pathlib

import forked
import keras
import pytest
from PIL import Image

import pit_keras

SCRIPT = pathlib.Path(__file__).parents[2] / "train/analyze.py"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    small = {"input_shape": (24, 24, 3), "patch_size": 4, "stride": 4, "head_dim": 8, "classes": 10}
    pit_keras.create_model("pit_ti", **small, depths=(1, 1, 1)).save(folder / "pit.keras")
    resnet = {"input_shape": (32, 32, 3), "base_width": 4, "depths": (1, 1, 1, 1)}
    pit_keras.create_model("resnet50", **resnet, classes=10).save(folder / "resnet.keras")
    return folder


def test_interaction_writes_a_table_and_the_two_plots(models, tmp_path):
    """Without a display; one network from a file, the approximation of another beside it."""
    out = tmp_path / "new/folder"
    ended = forked.run_script(
        SCRIPT,
        "interaction",
        f"--model={models / 'pit.keras'},resnet50",
        "--image_size=32",
        "--dataset=digits",
        "--images=5",
        "--batch_size=4",
        "--thresholds=0.01,0.2",
        f"--output_dir={out}",
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        f"{models / 'pit.keras'}, weights: its own",
        "resnet50 has no attention: the paper's approximation stands in for it",
        f"Written to {out}: interaction.csv, interaction.png",
    ]
    with (out / "interaction.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = [row for row in rows if row["kind"] == "measured"]
    assert len(measured) == 3 * 2
    assert {(row["images"], row["dataset"], row["split"]) for row in measured} == {
        ("5", "digits", "val")
    }
    assert {row["threshold"] for row in rows} == {"0.01", "0.2"}
    assert [row["kind"] for row in rows[6:]] == 16 * 2 * ["approximation"]
    assert all(0 <= float(row["share"]) <= 1 for row in rows)
    assert Image.open(out / "interaction.png").size[0] > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images=some"], "--images must be a whole number; got 'some'."),
        (["--images=0"], "--images=0"),
        (["--holdout=x"], "--holdout must be a number; got 'x'."),
        (["--thresholds=0.1,2"], "A threshold is a number in 0..1, such as 0.01; got 2.0."),
        (["--thresholds=0.1,much"], "--thresholds must be numbers with commas between; got '0.1,m"),
        (["--queries=heads"], "--queries=heads"),
        (["--modle=x"], "modle"),
        (
            ["--image_size=big"],
            "--image_size must be one side or height,width in pixels; got 'big'",
        ),
        (
            ["--model={models}/resnet.keras", "--queries=class"],
            "--queries=class is for networks with class tokens, and {models}/resnet.keras has none",
        ),
        (
            ["--model={models}/resnet.keras", "--keys=all"],
            "--keys=all is for networks with class tokens, and {models}/resnet.keras has none",
        ),
        (["--model=pit_s"], "pit_s needs --weights: imagenet, a weights file, or none"),
        (["--dataset=folder:nowhere"], "nowhere"),
        (["--output_dir=/proc/x"], "/proc/x"),
        (["more"], "Give one analysis, interaction; got interaction more."),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, models, tmp_path):
    given = [
        f"--model={models / 'pit.keras'}",
        "--dataset=digits",
        f"--output_dir={tmp_path / 'out'}",
    ]

    arguments = [argument.format(models=models) for argument in arguments]
    ended = forked.run_script(SCRIPT, "interaction", *given, *arguments)

    assert ended.returncode == 1
    assert ended.stdout == ""
    *_, sentence = ended.stderr.strip().splitlines()
    assert sentence.startswith("error: ")
    assert message.format(models=models) in sentence
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


def test_a_trained_network_that_cannot_be_measured_is_named_as_it_was_given(tmp_path):
    images = keras.Input((24, 24, 3))
    logits = keras.layers.Dense(10)(keras.layers.Flatten()(images))
    keras.Model(images, logits).save(tmp_path / "own.keras")

    ended = forked.run_script(
        SCRIPT,
        "interaction",
        f"--model={tmp_path / 'own.keras'}",
        "--dataset=digits",
        f"--output_dir={tmp_path / 'out'}",
    )

    *_, sentence = ended.stderr.strip().splitlines()
    assert ended.returncode == 1
    assert sentence.startswith(f"error: {tmp_path / 'own.keras'} has neither attention nor blocks")


@pytest.mark.parametrize("name", ["interaction.csv", "interaction.png"])
def test_what_cannot_be_written_is_told_before_the_measurement(name, models, tmp_path):
    (tmp_path / name).mkdir()

    ended = forked.run_script(
        SCRIPT,
        "interaction",
        f"--model={models / 'pit.keras'}",
        "--dataset=digits",
        f"--output_dir={tmp_path}",
    )

    *_, sentence = ended.stderr.strip().splitlines()
    assert (ended.returncode, ended.stdout) == (1, "")
    assert sentence == f"error: {tmp_path / name} is a folder; move it away."
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_a_lacking_flag_is_named():
    ended = forked.run_script(SCRIPT, "interaction", "--model=resnet50")
    assert ended.returncode != 0
    assert "error: --dataset must be given; --help lists all flags." in ended.stderr
