import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pit_keras.cli import main
from pit_keras.data.sources import open_source
from pit_keras.training.recipes import recipe
from pit_keras.training.trainer import Trainer

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on digits, small and hardly trained."""
    config = recipe("vanilla", "pit_ti")
    config.model.patch_size, config.model.stride, config.model.head_dim = 4, 4, 8
    config.model.depths = (1, 1, 1)
    config.data.dataset, config.data.image_size = "digits", (24, 24)
    config.training.batch_size, config.training.epochs, config.training.jit = 200, 1, False
    config.optimizer.warmup_epochs = 0.0
    path = tmp_path_factory.mktemp("runs") / "digits"
    Trainer(config, open_source("digits"), path, verbose=False).run()
    return path


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in (("a.png", (40, 30)), ("b.jpg", (64, 64)), ("c.JPEG", (8, 90))):
        Image.effect_noise(size, 60).convert("RGB").save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def printed(capsys, *arguments):
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_models_lists_parameters_macs_and_grids(capsys):
    lines = printed(capsys, "models", "pit_s*").splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["pit_s", "23,461,912", "2.87", "27x27", "14x14", "7x7"]
    assert lines[2].split()[:2] == ["pit_s_distilled", "24,039,056"]


def test_predict_names_files_and_folders_and_draws(run, pictures, capsys, tmp_path):
    drawing = tmp_path / "drawing.png"
    out = printed(
        capsys, "predict", f"--model={run}", "--top=3", f"--output={drawing}", pictures,
        pictures / "b.jpg",
    )  # fmt: skip
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == [
        str(pictures / name) for name in ("a.png", "b.jpg", "c.JPEG", "b.jpg")
    ]
    assert lines[1] == lines[3]
    shares = [float(part.split()[1].rstrip("%")) for part in lines[0].split(": ")[1].split(", ")]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert Image.open(drawing).size[0] > 500


def test_evaluate_gives_the_runs_own_results(run, capsys, tmp_path):
    file = tmp_path / "results.json"
    printed(capsys, "evaluate", f"--model={run}", "--batch_size=50", f"--output={file}")
    results, expected = json.loads(file.read_text()), json.loads((run / "results.json").read_text())
    for name in ("top1", "top5", "images", "dataset", "split", "eval_crop"):
        assert results[name] == pytest.approx(expected[name])
    printed(capsys, "evaluate", f"--model={run}", "--split=train", "--crop=1", f"--output={file}")
    results = json.loads(file.read_text())
    assert (results["images"], results["eval_crop"]) == (1437, 1)


def test_export_compares_on_the_runs_images_and_the_file_predicts(run, pictures, capsys, tmp_path):
    out = printed(capsys, "export", f"--model={run}", f"--output_dir={tmp_path / 'out'}")
    assert [line.split(" ")[0] for line in out.splitlines()[-2:]] == [
        str(tmp_path / "out/saved_model"),
        str(tmp_path / "out/model.tflite"),
    ]
    assert out.count("the logits of 32 images differ by at most") == 2
    assert out.count("100.0% of the likeliest classes are the same") == 2
    of_keras = printed(capsys, "predict", f"--model={run / 'model.keras'}", pictures)
    of_tflite = printed(capsys, "predict", f"--model={tmp_path / 'out/model.tflite'}", pictures)
    for a, b in zip(of_keras.splitlines(), of_tflite.splitlines(), strict=True):
        assert a.split(",")[0].split("%")[0] == b.split(",")[0].split("%")[0]


def test_export_of_a_lone_file_compares_on_given_or_sample_photographs(
    run, pictures, capsys, tmp_path
):
    lone = tmp_path / "lone.keras"
    lone.write_bytes((run / "model.keras").read_bytes())
    arguments = ["export", f"--model={lone}", "--format", "tflite"]
    out = printed(capsys, *arguments)
    assert "the logits of 8 images" in out
    out = printed(capsys, *arguments, "--overwrite", "--images", *pictures.glob("*.[pj]*"))
    assert "the logits of 2 images" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "resnet*"], "No model matches 'resnet*'; models are pit_b, "),
        (["predict", "--model=nowhere", "x.png"], "nowhere"),
        (["predict", "--model={run}", "{pictures}/none.png"], "There is no image at"),
        (["predict", "--model={run}", "{pictures}/notes.txt"], "cannot be read as a JPEG or PNG"),
        (["predict", "--model={run}", "{empty}"], "holds no .jpg, .jpeg, .png files"),
        (["predict", "--model={pictures}/a.png", "{pictures}"], "a.png"),
        (["predict", "--model={run}", "--output=x.xyz", "{pictures}"], "Cannot draw x.xyz"),
        (["predict", "--model={run}", "--output={pictures}/a.png", "{pictures}"], "is one of the"),
        (
            ["predict", "--model={run}", "--classes={pictures}/notes.txt", "{pictures}"],
            "1 class names",
        ),
        (["evaluate", "--model={run}", "--dataset=folder:{pictures}"], "pictures"),
        (["evaluate", "--model={run}", "--dataset=folder:{other}"], "2 classes and the model 10"),
        (["evaluate", "--model={run}", "--crop=2"], "crop"),
        (["export", "--model={run}", "--output_dir={pictures}/a.png"], "a.png"),
    ],
)
def test_bad_input_is_one_sentence_and_a_failure(
    arguments, message, run, pictures, tmp_path, capsys
):
    (tmp_path / "empty").mkdir()
    for label in "01":
        (tmp_path / f"other/{label}").mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (9, 9)).save(tmp_path / f"other/{label}/{index}.png")
    places = {
        "run": run,
        "pictures": pictures,
        "empty": tmp_path / "empty",
        "other": tmp_path / "other",
    }
    with pytest.raises(SystemExit) as ending:
        main([argument.format(**places) for argument in arguments])
    assert str(ending.value).startswith("error: ")
    assert message in str(ending.value)
    assert "\n" not in str(ending.value)


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["predict"], ["predict", "--model=x", "--top=0", "y"]]
)
def test_wrong_usage_is_explained(arguments, capsys):
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    assert "usage: pit-keras" in capsys.readouterr().err


def script(name, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / "train" / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_training_script_from_flags_to_finished_run(tmp_path):
    """On JPEGs of mixed sizes; then the same command again, which changes nothing."""
    for label, colour in (("blue", (20, 20, 200)), ("red", (200, 20, 20))):
        for part, count in (("train", 10), ("val", 3)):
            (tmp_path / f"data/{part}/{label}").mkdir(parents=True)
            for index in range(count):
                noise = np.random.default_rng(index).integers(0, 55, (30 + index, 50 - index, 3))
                pixels = np.uint8(noise + colour)
                Image.fromarray(pixels).save(tmp_path / f"data/{part}/{label}/{index}.jpg")
    run = tmp_path / "run"
    arguments = [
        "--recipe=cutmix", "--model=pit_ti", f"--dataset=folder:{tmp_path / 'data'}",
        f"--output_dir={run}", "--image_size=24,32", "--batch_size=5", "--epochs=2",
        "--config.model.patch_size=4", "--config.model.stride=4", "--config.model.head_dim=4",
        "--config.model.depths=(1,1,1)", "--config.optimizer.warmup_epochs=1",
        "--config.training.jit=false",
    ]  # fmt: skip
    first = script("train.py", *arguments)
    assert first.returncode == 0, first.stderr
    assert "Top-1 " in first.stdout
    assert "on 6 images." in first.stdout
    assert (run / "classes.txt").read_text() == "blue\nred\n"
    with (run / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    assert Image.open(run / "history.png").size[0] > 500

    again = script("train.py", *arguments)
    assert again.returncode == 0
    assert "is finished; nothing is changed." in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=digits"], "--output_dir"),
        (
            ["--dataset=digits", "--output_dir={run}", "--model=pit_x"],
            "error: Unknown model 'pit_x'",
        ),
        (["--dataset=folder:{run}/none", "--output_dir={run}"], "error: "),
        (
            ["--dataset=digits", "--output_dir={run}", "--config.data.flop=1"],
            "did you mean data.flip",
        ),
    ],
)
def test_the_training_script_fails_in_one_sentence(arguments, message, tmp_path):
    ended = script("train.py", *(argument.format(run=tmp_path / "run") for argument in arguments))
    assert ended.returncode == 1
    assert message in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


def test_sample_images_are_written_with_their_class(tmp_path):
    ended = script("sample_images.py", "--dataset=digits", "--count=3", f"--output_dir={tmp_path}")
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000000_2.png",
        "000001_3.png",
        "000002_4.png",
    ]
    assert Image.open(tmp_path / "000000_2.png").size == (8, 8)
