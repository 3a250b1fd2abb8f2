"""The data that a model is measured on, where it is the run's own and where it is another."""

import pytest
from PIL import Image

from pit_keras.commands.arguments import open_data_set
from pit_keras.config.fields import DataConfig
from pit_keras.runs.trained_model import TrainedModel


def trained_on(folder, **settings):
    data = DataConfig(dataset=f"folder:{folder}", holdout=0.5, **settings)
    return TrainedModel(model=None, class_names=("blue", "red"), data=data)


@pytest.fixture
def photos(tmp_path):
    """Eight images of each of two classes, without a split."""
    for name in ("blue", "red"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (8, 8), name).save(tmp_path / f"photos/{name}/{number}.png")
    return tmp_path / "photos"


def test_the_images_of_its_fold_measure_a_run(photos, tmp_path):
    trained = trained_on(photos, fold=(1, 4))
    assert open_data_set(trained).sizes == {"train": 12, "val": 4}
    (tmp_path / "other").symlink_to(photos)
    other = f"folder:{tmp_path / 'other'}"  # which the fold is not of
    assert open_data_set(trained, other).sizes == {"train": 8, "val": 8}


@pytest.mark.parametrize("applied", [False, True])
def test_photographs_are_turned_as_in_training(photos, applied):
    source = open_data_set(trained_on(photos, apply_orientation=applied))
    assert source.apply_orientation == applied
