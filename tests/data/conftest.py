"""Small image data sets, made on the spot from scikit-learn's two photographs."""

import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_sample_images

from pit_keras.config.fields import DataConfig
from pit_keras.data.labelled_images import open_source

FILE_KINDS = ((".jpg", "RGB"), (".JPEG", "L"), (".png", "RGBA"), (".jpg", "CMYK"), (".PNG", "P"))


@pytest.fixture
def config():
    """A small, square data configuration with every random step switched on."""
    return DataConfig(image_size=(24, 24), cutmix_alpha=1.0)


@pytest.fixture(scope="session")
def photographs():
    """Two photographs, china.jpg and flower.jpg: uint8 (427, 640, 3)."""
    return load_sample_images().images


def write_images(root, photographs, count=12):
    """Writes `count` pieces of each photograph, of many sizes and kinds, as ROOT/CLASS/*."""
    for class_name, photograph in zip(("china", "flower"), photographs, strict=True):
        (root / class_name).mkdir(parents=True)
        for number in range(count):
            suffix, mode = FILE_KINDS[number % len(FILE_KINDS)]
            height, width = 40 + 3 * (number % 7), 40 + 5 * (number % 4)
            piece = photograph[11 * number :, 17 * number :][:height, :width]
            image = Image.fromarray(piece).convert(mode)
            image.save(root / class_name / f"{number:02d}{suffix}")
    return root


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory, photographs):
    """A folder of two classes with 12 images each, not to be changed."""
    return write_images(tmp_path_factory.mktemp("images"), photographs)


@pytest.fixture(scope="session")
def folder_with_a_broken_image(tmp_path_factory, photographs):
    """A folder like `image_folder`, in which one image is cut short, not to be changed."""
    root = write_images(tmp_path_factory.mktemp("broken"), photographs)
    broken = root / "china" / "03.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    return root


@pytest.fixture
def make_folder(tmp_path, photographs):
    """Makes a folder like `image_folder`, to be changed."""
    return lambda: write_images(tmp_path / "images", photographs)


def store_squares(
    folder, sizes=None, labels=None, features=None, name="squares", files=4, **options
):
    """Stores a TFDS data set of grey squares, in so many files a split, below `folder`.

    Example `number` has the level 5 * number, modulo 256, and the label 0, 1 or 2 in turn, unless
    `labels` maps the number to another. `features` are added or replaced.
    """
    features = {
        "picture": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
        "kind": tfds.features.ClassLabel(names=["low", "middle", "high"]),
        **(features or {}),
    }

    def example(number):
        values = {
            "picture": np.full((6 + number % 3, 8, 1), 5 * number % 256, np.uint8),
            "kind": (labels or {}).get(number, number % 3),
            "mask": np.zeros((2, 2, 1), np.uint8),
            "other": 0,
        }
        return number, {key: values[key] for key in features}

    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={
            split: [example(number) for number in range(size)]
            for split, size in (sizes or {"train": 40, "test": 10}).items()
        },
        data_dir=folder,
        download_config=tfds.download.DownloadConfig(num_shards=files),
        **options,
    )
    return folder


@pytest.fixture(scope="session")
def few_digits():
    """The first 40 training and 10 validation images of the digits."""
    digits, sizes = open_source("digits"), {"train": 40, "val": 10}
    images, labels = (
        {split: part[: sizes[split]] for split, part in whole.items()}
        for whole in (digits.images, digits.labels)
    )
    return dataclasses.replace(digits, images=images, labels=labels)


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """The folder of the data set "squares": 40 training and 10 test examples."""
    return store_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="session")
def unsplit_squares(tmp_path_factory):
    """The folder of the data set "squares" with its 40 training examples only."""
    return store_squares(tmp_path_factory.mktemp("unsplit"), sizes={"train": 40})


@pytest.fixture
def store_records(tmp_path):
    """`store_squares` below the test's own folder."""
    return lambda **options: store_squares(tmp_path, **options)
