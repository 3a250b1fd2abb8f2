import math

import numpy as np
import pytest
import tensorflow as tf

from pit_keras.data.erasing import AREA, ASPECT, erasing_box, random_erasing
from pit_keras.data.seeds import example_seed


def test_a_box_of_standard_normal_noise_is_erased():
    image = tf.fill((64, 48, 3), 7.0)
    erase = tf.function(lambda seed: random_erasing(image, seed, 1.0))
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
    images = tf.data.Dataset.range(3000).map(
        lambda i: random_erasing(image, example_seed(0, 0, i), 0.25)
    )

    share = np.mean([(erased != 0).any() for erased in images.as_numpy_iterator()])

    assert abs(share - 0.25) < 0.03


def reference_box(rng, height, width):
    """The definition, as timm transcribes it from the authors."""
    for _ in range(10):
        area = rng.uniform(*AREA) * height * width
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        box = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if box[0] < height and box[1] < width:
            top, left = rng.integers(height - box[0] + 1), rng.integers(width - box[1] + 1)
            return top, top + box[0], left, left + box[1]
    return 0, 0, 0, 0


@pytest.mark.parametrize("size", [pytest.param((64, 64), marks=pytest.mark.slow), (30, 90)])
def test_boxes_are_distributed_by_the_definition(size):
    count, rng = 4000, np.random.default_rng(0)
    boxes = tf.data.Dataset.range(count).map(
        lambda i: tf.stack(erasing_box(*size, example_seed(0, 0, i)))
    )
    drawn = np.stack(list(boxes.as_numpy_iterator()))
    expected = np.stack([reference_box(rng, *size) for _ in range(count)])

    for edges, reference in zip(drawn.T, expected.T, strict=True):
        levels = np.quantile(reference, np.linspace(0.05, 0.95, 19))
        shares, expected_shares = (
            (values[:, None] <= levels).mean(axis=0) for values in (edges, reference)
        )
        np.testing.assert_allclose(shares, expected_shares, atol=0.035)


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_the_probability_must_be_one(probability):
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        random_erasing(tf.zeros((8, 8, 3)), example_seed(0, 0, 0), probability)


def test_an_image_too_small_for_a_box_is_left():
    image = tf.zeros((1, 1, 3))

    np.testing.assert_array_equal(random_erasing(image, example_seed(0, 0, 0), 1.0), image)
