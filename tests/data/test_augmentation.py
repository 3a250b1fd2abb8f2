import functools
import math

import numpy as np
import pytest
import tensorflow as tf
from drawing import drawn

from pit_keras.data.augmentation import (
    ERASED_AREA,
    ERASED_ASPECT,
    crop_box,
    erasing_box,
    is_mirrored,
    random_erasing,
)
from pit_keras.data.seeds import example_seed

SCALE, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
DRAWS = 6000


@functools.cache
def boxes(height, width, scale=SCALE, aspect=ASPECT, draws=DRAWS):
    """Many crop boxes: int (draws, 4)."""
    return drawn(lambda seed: crop_box(height, width, seed, scale, aspect), draws, epoch=1)


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
    actual = boxes(*size)
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

    for name, values in traits(actual).items():
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


def mirrored(draws):
    """Whether each of many images is mirrored: bool (draws,)."""
    return drawn(is_mirrored, draws, epoch=1)


def test_half_of_the_images_is_mirrored_whatever_is_cropped():
    flips = mirrored(2500).astype(float)
    assert abs(flips.mean() - 0.5) < 0.04
    for column in boxes(375, 500)[:2500].T:
        assert abs(np.corrcoef(flips, column)[0, 1]) < 0.06


def test_seeds_depend_on_each_of_their_parts():
    parts = [
        (seed, epoch, example) for seed in range(5) for epoch in range(5) for example in range(5)
    ]
    assert len({tuple(example_seed(*part).numpy()) for part in parts}) == len(parts)
    uniforms = [float(tf.random.stateless_uniform((), example_seed(*part))) for part in parts]
    assert len(set(uniforms)) == len(parts)
    np.testing.assert_array_equal(example_seed(1, 2, 3), example_seed(*map(tf.constant, (1, 2, 3))))


def test_a_box_of_standard_normal_noise_is_erased():
    image = tf.fill((64, 48, 3), 7.0)
    erase = tf.function(lambda seed: random_erasing(image, seed, 1.0), autograph=False)
    noise = []
    for example in range(40):
        seed = example_seed(0, 0, example)
        top, bottom, left, right = (int(edge) for edge in erasing_box(64, 48, seed))

        erased = erase(seed).numpy()

        outside = np.ones((64, 48), bool)
        outside[top:bottom, left:right] = False
        assert (erased[outside] == 7).all()
        noise.append(erased[~outside].ravel())
    noise = np.concatenate(noise)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    # Drawn for every value, not for every box or channel.
    assert len(np.unique(noise)) > 0.99 * len(noise)


def test_a_quarter_of_the_images_is_erased():
    image = tf.zeros((8, 8, 3))

    erased = drawn(lambda seed: random_erasing(image, seed, 0.25), 3000)

    share = (erased != 0).any(axis=(1, 2, 3)).mean()

    assert abs(share - 0.25) < 0.03


def reference_erasing_box(rng, height, width):
    """The definition, as timm transcribes it from the authors."""
    for _ in range(10):
        area = rng.uniform(*ERASED_AREA) * height * width
        aspect = math.exp(rng.uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])))
        box = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if box[0] < height and box[1] < width:
            top, left = rng.integers(height - box[0] + 1), rng.integers(width - box[1] + 1)
            return top, top + box[0], left, left + box[1]
    return 0, 0, 0, 0


@pytest.mark.parametrize("size", [pytest.param((64, 64), marks=pytest.mark.slow), (30, 90)])
def test_erased_boxes_are_distributed_by_the_definition(size):
    count, rng = 4000, np.random.default_rng(0)
    edges_drawn = drawn(functools.partial(erasing_box, *size), count)
    expected = np.stack([reference_erasing_box(rng, *size) for _ in range(count)])

    for edges, reference in zip(edges_drawn, expected.T, strict=True):
        levels = np.quantile(reference, np.linspace(0.05, 0.95, 19))
        shares, expected_shares = (
            (values[:, None] <= levels).mean(axis=0) for values in (edges, reference)
        )
        np.testing.assert_allclose(shares, expected_shares, atol=0.035)


def test_an_image_too_small_for_a_box_is_left():
    image = tf.zeros((1, 1, 3))

    np.testing.assert_array_equal(random_erasing(image, example_seed(0, 0, 0), 1.0), image)
