import math

import numpy as np
import pytest
import tensorflow as tf

from pit_keras.data.augmentation import crop_box, is_mirrored
from pit_keras.data.seeds import example_seed

SCALE, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
DRAWS = 6000


def boxes(height, width, scale=SCALE, aspect=ASPECT, draws=DRAWS):
    """Many crop boxes: int (draws, 4)."""
    dataset = tf.data.Dataset.range(draws).map(
        lambda example: crop_box(height, width, example_seed(0, 1, example), scale, aspect)
    )
    return np.stack(list(dataset.as_numpy_iterator()))


def reference_box(rng, height, width, scale, aspect):
    """torchvision's RandomResizedCrop.get_params, by its definition."""
    area = height * width
    for _ in range(10):
        target = area * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(*np.log(aspect)))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    if width / height < aspect[0]:
        w, h = width, round(width / aspect[0])
    elif width / height > aspect[1]:
        w, h = round(height * aspect[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
    "size", [(375, 500), (90, 400), pytest.param((500, 60), marks=pytest.mark.slow)]
)
def test_boxes_are_distributed_as_torchvisions(size):
    rng = np.random.default_rng(0)
    drawn = boxes(*size)
    expected = np.stack([reference_box(rng, *size, SCALE, ASPECT) for _ in range(DRAWS)])
    levels = np.linspace(0.02, 0.98, 25)

    def traits(box):
        top, left, height, width = box.T
        rows, columns = size
        return {
            "area": height * width / (rows * columns),
            "aspect": width / height,
            "row": (top + height / 2) / rows,
            "column": (left + width / 2) / columns,
        }

    for name, values in traits(drawn).items():
        reference = traits(expected)[name]
        # Compared as shares below each quantile, so that ties count as what they are.
        quantiles = np.quantile(reference, levels)
        shares = (values[:, None] <= quantiles).mean(axis=0)
        expected_shares = (reference[:, None] <= quantiles).mean(axis=0)
        np.testing.assert_allclose(shares, expected_shares, atol=0.03, err_msg=name)


def test_boxes_lie_within_the_image_and_reach_its_borders():
    top, left, height, width = boxes(7, 9, draws=2000).T
    assert min(top.min(), left.min()) == 0
    assert min(height.min(), width.min()) > 0
    assert (top + height).max() == 7
    assert (left + width).max() == 9


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 40), (23, 0, 53, 40)), ((40, 100), (0, 23, 40, 53)), ((60, 70), (0, 0, 60, 70))],
)
def test_where_no_box_fits_the_largest_allowed_one_is_centred(size, expected):
    # An area as large as the image only fits with the image's own aspect, which is never drawn.
    assert {tuple(box) for box in boxes(*size, scale=(1.0, 1.0), draws=20).tolist()} == {expected}


@pytest.mark.parametrize(
    ("scale", "aspect"),
    [((0, 1), ASPECT), ((0.5, 0.1), ASPECT), ((0.1, 2), ASPECT), (SCALE, (2, 1))],
)
def test_impossible_ranges_are_errors(scale, aspect):
    with pytest.raises(ValueError, match="random resized crop needs"):
        crop_box(10, 10, example_seed(0, 0, 0), scale, aspect)


def mirrored(draws):
    """Whether each of many images is mirrored: bool (draws,)."""
    flips = tf.data.Dataset.range(draws).map(
        lambda example: is_mirrored(example_seed(0, 1, example))
    )
    return np.array(list(flips.as_numpy_iterator()))


def test_half_of_the_images_is_mirrored():
    assert abs(mirrored(2500).mean() - 0.5) < 0.04


def test_crop_and_flip_are_drawn_independently():
    draws = 2500
    flips = mirrored(draws).astype(float)
    for column in boxes(375, 500, draws=draws).T:
        assert abs(np.corrcoef(flips, column)[0, 1]) < 0.06


def test_seeds_depend_on_each_of_their_parts():
    parts = [
        (seed, epoch, example) for seed in range(8) for epoch in range(8) for example in range(8)
    ]
    assert len({tuple(example_seed(*part).numpy()) for part in parts}) == len(parts)
    uniforms = [float(tf.random.stateless_uniform((), example_seed(*part))) for part in parts]
    assert len(set(uniforms)) == len(parts)
    np.testing.assert_array_equal(example_seed(1, 2, 3), example_seed(*map(tf.constant, (1, 2, 3))))
