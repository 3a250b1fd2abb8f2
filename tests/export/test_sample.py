import numpy as np
import pytest

from pit_keras.config.fields import DataConfig
from pit_keras.data.labelled_images import open_source
from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.export.agreement import (
    MOST_PHOTOGRAPHS,
    take_sample,
    training_images,
    validation_images,
)

DATA = DataConfig(image_size=(24, 32), eval_crop=0.8)


@pytest.fixture(scope="module")
def digits():
    return open_source("digits")


def test_crops_are_those_of_the_evaluation(photographs):
    sample = take_sample(iter(photographs), DATA, "pieces")
    assert sample.crops.shape == (8, 24, 32, 3)
    assert sample.crops.dtype == np.uint8
    for crop, photograph in zip(sample.crops, photographs, strict=True):
        np.testing.assert_array_equal(crop, resize_and_crop(photograph, (24, 32), 0.8))
    assert len(sample) == len(sample.photographs) == 8
    assert sample.origin == "pieces"


def test_only_some_are_kept_as_they_came(digits):
    sample = take_sample(validation_images(digits, 90), DATA, "digits")
    assert len(sample) == 90
    assert len(sample.photographs) == MOST_PHOTOGRAPHS


def test_validation_images_come_from_all_over_the_split(digits):
    images = list(validation_images(digits, 90))
    pixels = digits.images["val"].numpy()
    for number, image in enumerate(images):
        np.testing.assert_array_equal(image, pixels[4 * number])
    assert len(list(validation_images(digits, 1000))) == digits.sizes["val"]


def test_training_images_are_drawn_from_the_other_split_and_are_always_the_same(digits):
    images = np.stack(list(training_images(digits, 64)))
    np.testing.assert_array_equal(images, np.stack(list(training_images(digits, 64))))
    stored = {pixels.tobytes() for pixels in digits.images["train"].numpy()}
    assert all(image.tobytes() in stored for image in images)
    assert not np.array_equal(images, digits.images["train"][:64])
    assert len(list(training_images(digits, 5000))) == digits.sizes["train"]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "must be uint8"),
        (np.zeros((8, 8), np.uint8), r"got uint8 of shape \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), "of shape"),
        (np.zeros((0, 8, 3), np.uint8), r"of shape \(0, 8, 3\)"),
    ],
)
def test_other_images_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        take_sample([image], DATA, "x")


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="There are no images"):
        take_sample([], DATA, "x")
