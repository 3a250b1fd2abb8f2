"""Boxes against keras-cv, which adds 1e-7 to each denominator."""

import keras_cv
import numpy as np
import pytest

from pit_keras.models.boxes import centres_to_corners, pairwise_giou

EPS = float(np.finfo("float32").eps)
RNG = np.random.default_rng(0)
SIZES = RNG.integers(32, 128, (2, 20, 2))
# Centres and sizes in whole 256ths, so that float32 holds corners and areas exactly.
BOXES, OTHERS = np.float32(np.concatenate([RNG.integers(256, size=SIZES.shape), SIZES], -1)) / 256
SMALLEST_UNION = (32 / 256) ** 2
ROUNDINGS = 4 * EPS  # two divisions and two differences of numbers of at most 1


def test_formats_are_those_of_keras_cv():
    expected = keras_cv.bounding_box.convert_format(BOXES, source="center_xywh", target="xyxy")
    np.testing.assert_array_equal(centres_to_corners(BOXES), expected)


def test_giou_is_that_of_keras_cv():
    loss = keras_cv.losses.GIoULoss("center_xywh", axis="no_reduction", reduction="none")
    with pytest.warns(UserWarning, match="no_reduction"):
        expected = 1 - np.asarray(loss(BOXES, OTHERS))  # of the pairs (0, 0), (1, 1), ...
    actual = pairwise_giou(centres_to_corners(BOXES), centres_to_corners(OTHERS))
    tolerance = 2 * 1e-7 / SMALLEST_UNION + ROUNDINGS
    assert np.diagonal(actual) == pytest.approx(expected, abs=tolerance)
