"""Data sets written as class folders, which can be opened again."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from pit_keras.data.class_folder import write_class_folder
from pit_keras.data.labelled_images import open_source


def test_the_first_images_of_each_class_are_written_and_read_again(tmp_path):
    digits = open_source("digits")
    paths = write_class_folder(digits, "val", tmp_path / "new", per_class=3)

    labels = digits.labels["val"].numpy()
    expected = [i for i, label in enumerate(labels) if (labels[:i] == label).sum() < 3]
    assert paths == [tmp_path / f"new/{labels[i]}/{i:06d}.png" for i in expected]
    for index, path in zip(expected, paths, strict=True):
        pixels = np.asarray(Image.open(path))
        np.testing.assert_array_equal(pixels, digits.images["val"][index].numpy())
    source = open_source(f"folder:{tmp_path / 'new'}", holdout=None)
    assert source.class_names == digits.class_names
    assert source.sizes == {"train": 30, "val": 0}


def test_a_class_with_fewer_images_gives_all_of_them(tmp_path):
    digits = open_source("digits")
    assert len(write_class_folder(digits, "val", tmp_path, per_class=1000)) == 360


@pytest.mark.parametrize("name", ["a/b", "..", "", "/etc"])
def test_a_class_whose_name_is_no_folder_is_refused(tmp_path, name):
    digits = open_source("digits")
    odd = dataclasses.replace(digits, class_names=(*digits.class_names[:9], name))
    with pytest.raises(ValueError, match=r"The class '.*' cannot be the name"):
        write_class_folder(odd, "val", tmp_path / "new", per_class=1)
    assert not list(tmp_path.rglob("*.png"))
