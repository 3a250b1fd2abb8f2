"""`pit-keras check` as a user calls it: what it prints, where it writes, how it ends."""

import os
import pathlib

import numpy as np
import pytest
import safetensors.numpy
from fixed_weights import fixed_state_dict
from PIL import Image

import pit_keras
from pit_keras.cli import main
from pit_keras.weights.released import hand_placed_file

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/models.npz"


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two classes without any fault, with 24 images each."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))  # without released weights
    monkeypatch.chdir(tmp_path)
    for number in range(48):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((4, 4)).resize((40, 40)).save(folder / f"{number}.png")
    return tmp_path / "photos"


def check(*arguments):
    with pytest.raises(SystemExit) as ending:
        main(["check", *map(str, arguments)])
    return ending.value.code


def test_the_exit_code_is_that_of_the_worst(photos, capsys):
    assert check("photos") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == [
        "photos: 48 images of 2 classes, 44 for training and 4 for validation.",
        "Nothing was found.",
    ]
    assert printed.err == "The page is photos_check/check.html\n"
    assert sorted(os.listdir("photos_check")) == ["check.csv", "check.html"]
    (photos / "a/notes.txt").write_text("")
    assert check("photos") == 0
    assert "remark       1  Left out: 1 .txt" in capsys.readouterr().out
    (photos / "a/x.png").write_bytes((photos / "a/0.png").read_bytes())
    assert check("photos", "--holdout=0.02", "--output=out") == 3
    assert "The same image twice: a/x.png = a/0.png\n" in capsys.readouterr().out
    (photos / "a/y.png").write_bytes(b"")
    assert check("folder:photos", "--output=out") == 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("error        1  Files that cannot be read: a/y.png: cannot be read")


def test_a_network_gives_the_features(photos, capsys):
    model = pit_keras.create_model(
        "pit_ti", classes=3, input_shape=(32, 32, 3), patch_size=4, stride=4, head_dim=4,
        depths=(1, 1, 1),
    )  # fmt: skip
    model.save("net.keras")
    assert check("photos", "--model=net.keras") in (0, 3)
    printed = capsys.readouterr()
    assert "Labels are judged by the features of pit_ti" in printed.out
    assert "class names" not in printed.err


def test_released_weights_on_this_machine_give_the_features(photos, capsys):
    keys = (line.split() for line in np.load(GOLDEN)["pit_ti/keys"])
    state = fixed_state_dict({key: tuple(map(int, shape)) for key, *shape in keys})
    file = hand_placed_file("pit_ti")
    file.parent.mkdir(parents=True)
    safetensors.numpy.save_file(state, file)
    pit_keras.create_model("pit_ti", weights="imagenet")
    file.unlink()
    for number in range(4, 48):
        (photos / "ab"[number % 2] / f"{number}.png").unlink()
    assert check("photos") == 3
    assert "Labels are judged by the features of pit_ti" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "There is no folder none."),
        (["photos/a/0.png"], "photos/a/0.png is a file; give the folder that holds"),
        (["photos/a"], "photos/a holds no class folders"),
        (["empty"], "empty holds no JPEG or PNG images of classes; it holds 1 .txt."),
        (["photos", "--output=photos/out"], "--output=photos/out lies in photos, where it would"),
        (["photos", "--output=photos"], "--output=photos lies in photos"),
        (["photos", "--output=photos/a/0.png"], "lies in photos"),
        (["photos", "--output=notes.txt"], "--output=notes.txt is a file; give a folder."),
        (["photos", "--output=none/out"], "there is no folder none."),
        (["photos", "--holdout=0"], "--holdout must be between 0 and 1, got 0."),
        (["photos", "--model=none.keras"], "none.keras does not exist; give a run folder"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, photos, tmp_path, capsys):
    (tmp_path / "empty/a").mkdir(parents=True)
    (tmp_path / "empty/a/notes.txt").write_text("")
    (tmp_path / "notes.txt").write_text("")
    before = sorted(tmp_path.rglob("*"))
    error = check(*arguments)
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error
    assert sorted(tmp_path.rglob("*")) == before
