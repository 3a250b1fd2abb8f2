"""What is found wrong before a run folder is made or changed."""

import shutil

import pytest
from whole_runs import train, trainer_of

from pit_keras.config.fields import Config
from pit_keras.training.assembly import check_weights


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"notes.txt": "mine"}, "holds files but no run"),
        ({"config.json": "[1]"}, "is not a run's configuration"),
        ({"config.json": "{"}, "is not a run's configuration"),
        ({"config.json": '{"speed": 1}'}, "'speed'"),
        ({"config.json": "{}"}, "it lacks recipe, model, data"),
    ],
)
def test_folders_that_are_no_run_are_left_alone(content, message, make_tiny_config, tmp_path):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        train(make_tiny_config(), tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == content


def test_an_output_folder_that_cannot_be_made(make_tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file; --output_dir must be a folder"):
        train(make_tiny_config(), tmp_path / "file")
    with pytest.raises(OSError, match=r"run cannot be written \(Not a directory\)"):
        train(make_tiny_config(), tmp_path / "file/run")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.name", "pit_m", "Unknown model 'pit_m'. Did you mean"),
        ("data.image_size", (3, 3), "smaller than one patch"),
        ("training.batch_size", 1000, r"\(--batch_size\) must be between 1 and the 54 training"),
        ("training.accumulate", 3, "--accumulate=3 x --batch_size=27 is more than the 54"),
        ("distillation.kind", "hard", "must be a '_distilled' model, whose second head"),
        ("distillation.teacher", "nothing", "'nothing' is neither a model's name"),
    ],
)
def test_what_does_not_fit(path, value, message, make_tiny_config, tmp_path, teacher):
    config = make_tiny_config()
    section, name = path.split(".")
    if section == "distillation":
        config.distillation.kind, config.distillation.teacher = "hard", str(teacher)
        config.model.name = "vit_ti" if name == "kind" else "vit_ti_distilled"
    setattr(getattr(config, section), name, value)
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("pit_ti", "nowhere.pth", r"There is no weights file nowhere\.pth"),
        ("pit_ti", "weights.npz", r"Unknown weights 'weights\.npz'"),
        ("resnet50_no_pooling", "imagenet", "no released weights for resnet50_no_pooling"),
    ],
)
def test_weights_that_do_not_exist_are_told_without_data(name, weights, message):
    config = Config()
    config.model.name, config.model.weights = name, weights
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_weights(config)


def test_a_profile_that_is_never_reached(make_tiny_config, tmp_path):
    with pytest.raises(ValueError, match="--profile must begin before step 4, got 6"):
        trainer_of(make_tiny_config(), tmp_path / "run", profile=(6, 8))
    assert not (tmp_path / "run").exists()


def test_a_broken_validation_image(make_tiny_config, digit_folder, tmp_path):
    for split in ("train", "val"):
        shutil.copytree(digit_folder, tmp_path / "data" / split)
    (tmp_path / "data/val/2/07.png").write_bytes(b"not an image")
    config = make_tiny_config()
    config.data.dataset = f"folder:{tmp_path}/data"
    with pytest.raises(ValueError, match=r"val/2/07.png cannot be read"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
