import math

import numpy as np
import pytest

from pit_keras.export.agreement import compare, real_images
from pit_keras.export.formats import TOLERANCE

EXPECTED = np.array([[1.0, -4.0], [3.0, 2.0]], np.float32)


def test_figures():
    actual = EXPECTED + np.array([[0.0, 0.5], [-1.5, 0.25]], np.float32)
    agreement = compare(EXPECTED, actual)
    assert agreement.max_difference == 1.5
    assert agreement.scale == 4.0
    assert agreement.top1_agreement == 0.5
    assert agreement.images == 2
    assert "differ by at most 1.5e+00, 4e-01 of the largest (4)" in str(agreement)


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
    with pytest.raises(ValueError, match=r"shape \(2, 2\) were expected, not \(2, 1\)"):
        compare(EXPECTED, EXPECTED[:, :1])


def test_real_images_are_always_the_same_and_of_several_sizes():
    images = real_images()
    assert len(images) == 8
    assert all(image.dtype == np.uint8 and image.shape[-1] == 3 for image in images)
    assert len({image.shape for image in images}) == 4
    assert all(image.std() > 20 for image in images)
    assert all(np.array_equal(*pair) for pair in zip(images, real_images(), strict=True))
