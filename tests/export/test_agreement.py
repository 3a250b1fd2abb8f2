import dataclasses
import math
import time

import numpy as np
import pytest

from pit_keras.config.fields import DataConfig
from pit_keras.data.labelled_images import open_source
from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.export.agreement import (
    MOST_PHOTOGRAPHS,
    compare,
    compare_detections,
    median_milliseconds,
    real_images,
    take_sample,
    training_images,
    validation_images,
)
from pit_keras.export.formats import TOLERANCE
from pit_keras.runs.found_objects import THRESHOLD

EXPECTED = np.array([[1.0, -4.0], [3.0, 2.0]], np.float32)


def test_figures():
    actual = EXPECTED + np.array([[0.0, 0.5], [-1.5, 0.25]], np.float32)
    agreement = compare(EXPECTED, actual)
    assert agreement.max_difference == 1.5
    assert agreement.scale == 4.0
    assert agreement.top1_agreement == 0.5
    assert agreement.images == 2
    assert agreement.shortfall(None).startswith("largest error 1.5e+00, mean error 5.6e-01, same")
    assert agreement.shortfall(None).endswith("; an error of 4.0e-04 is allowed")
    assert agreement.shortfall(0.9).startswith("the same for 50.0%, while 90.0% of")


@pytest.mark.parametrize(("share", "agrees"), [(0.0, True), (0.9, True), (1.1, False)])
def test_the_limit_is_a_share_of_the_largest_logit(share, agrees):
    actual = EXPECTED.copy()
    actual[1, 1] += share * TOLERANCE * 4.0
    assert compare(EXPECTED, actual).within() == agrees


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_agrees(bad):
    spoiled = EXPECTED.copy()
    spoiled[0, 0] = bad
    assert not compare(EXPECTED, spoiled).within()
    assert not compare(spoiled, EXPECTED).within()
    assert not compare(spoiled, spoiled).within()


def test_other_shapes_are_an_error():
    with pytest.raises(ValueError, match="same shape"):
        compare(EXPECTED, EXPECTED[:, :1])


def test_real_images_are_always_the_same_and_of_several_sizes():
    images = real_images()
    assert len(images) == 8
    assert all(image.dtype == np.uint8 and image.shape[-1] == 3 for image in images)
    assert len({image.shape for image in images}) == 4
    assert all(image.std() > 20 for image in images)
    assert all(np.array_equal(*pair) for pair in zip(images, real_images(), strict=True))


def answers_of(images=2, queries=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "boxes": rng.uniform(size=(images, queries, 4)),
        "scores": np.tile([0.9, 0.8, 0.69, 0.1], (images, 1)),
        "labels": rng.integers(3, size=(images, queries)),
    }


def test_agreement_counts_the_objects_that_stay_the_same():
    expected = answers_of()
    same = compare_detections(expected, expected)
    assert (same.score_difference, same.box_difference, same.same_objects) == (0, 0, 1)
    assert (same.objects, same.images) == (4, 2)
    assert same.within()

    def changed(name, at, by):
        other = {key: value.copy() for key, value in expected.items()}
        other[name][at] += by
        return compare_detections(expected, other)

    assert changed("boxes", (0, 0, 2), 0.019).same_objects == 1
    assert changed("boxes", (0, 0, 2), 0.019).box_difference == pytest.approx(0.019)
    assert changed("boxes", (0, 0, 2), -0.021).same_objects == 0.75
    assert changed("labels", (1, 1), 1).same_objects == 0.75
    assert not changed("labels", (1, 1), 1).within()
    assert "same objects 75.0% of 4" in changed("labels", (1, 1), 1).shortfall(None)
    assert changed("labels", (1, 3), 1).same_objects == 1  # nobody is sure of it
    assert changed("labels", (1, 3), 1).within()
    assert changed("scores", (1, 0), -0.11).same_objects == 0.75
    assert changed("scores", (1, 0), -0.11).score_difference == pytest.approx(0.11)
    more = changed("scores", (0, 2), 0.02)  # an object now, and close to what it was
    assert (more.objects, more.same_objects) == (5, 1)
    lost = changed("scores", (0, 2), THRESHOLD + 0.2 - 0.69)
    assert (lost.objects, lost.same_objects) == (5, 0.8)
    unsure = {**expected, "scores": expected["scores"] / 2}
    assert compare_detections(unsure, unsure).cells[2] == "no objects"
    assert not changed("boxes", (0, 3, 0), 2e-4).within()
    assert changed("boxes", (0, 3, 0), 5e-5).within()


def test_what_is_not_finite_does_not_agree():
    for name in ("boxes", "scores"):
        other = answers_of()
        other[name][0, 0] = np.nan
        agreement = compare_detections(answers_of(), other)
        assert not agreement.finite
        assert not agreement.within()
    few = {name: values[:1] for name, values in answers_of().items()}
    with pytest.raises(ValueError, match="same shape"):
        compare_detections(answers_of(), few)
    nothing = {**answers_of(), "scores": np.full((2, 4), 0.3)}
    assert dataclasses.astuple(compare_detections(nothing, nothing))[2:4] == (1.0, 0)


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


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="There are no images"):
        take_sample([], DATA, "x")


def test_latency_is_the_median_of_calls_in_milliseconds():
    start = time.perf_counter()
    milliseconds = median_milliseconds(lambda: time.sleep(0.002))
    passed = 1000 * (time.perf_counter() - start)
    # Fifteen of the thirty took at least as long as the median does.
    assert 2 <= milliseconds <= passed / 15
