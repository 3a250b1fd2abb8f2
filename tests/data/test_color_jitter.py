import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from drawing import drawn
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

from pit_keras.data.color_jitter import adjust, color_jitter, draws
from pit_keras.data.seeds import example_seed

PILLOW = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
ORDERS = list(itertools.permutations(range(3)))


@pytest.fixture(scope="module")
def image():
    return load_sample_images().images[1][100:140, 200:256]


def adjusted_by_pillow(image, factors, order):
    picture = Image.fromarray(image)
    for kind in order:
        picture = PILLOW[kind](picture).enhance(factors[kind])
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "factors", [(0.6, 1.4, 0.7), (1.3, 0.6, 1.4), (0.0, 2.0, 0.5), (2.0, 0.0, 2.0), (1.0, 1.0, 1.0)]
)
def test_given_factors_and_order_the_pixels_are_pillows(image, factors, order):
    expected = adjusted_by_pillow(image, factors, order)

    adjusted = adjust(tf.constant(image), tf.constant(factors), tf.constant(order))

    assert adjusted.dtype == tf.uint8
    np.testing.assert_array_equal(adjusted, expected)


def test_the_order_matters_for_these_pixels(image):
    results = [adjusted_by_pillow(image, (0.6, 1.4, 0.7), order) for order in ORDERS]
    for one, other in itertools.combinations(results, 2):
        assert np.abs(one - other).mean() > 0.1


@functools.cache
def many_draws(strength, count=4000):
    return drawn(lambda seed: draws(seed, strength), count)


@pytest.mark.parametrize(
    ("strength", "low", "high"),
    [(0.3, 0.7, 1.3), pytest.param(1.0, 0.0, 2.0, marks=pytest.mark.slow), (1.5, 0.0, 2.5)],
)
def test_factors_are_uniform_and_independent(strength, low, high):
    factors, orders = many_draws(strength)

    assert factors.min() >= low
    assert factors.max() <= high
    levels = np.linspace(0.05, 0.95, 19)
    for kind in range(3):
        quantiles = np.quantile((factors[:, kind] - low) / (high - low), levels)
        np.testing.assert_allclose(quantiles, levels, atol=0.02)
    correlations = np.corrcoef(np.concatenate([factors, orders[:, :2]], axis=1).T)
    assert np.abs(correlations[:3] - np.eye(5)[:3]).max() < 0.04


def test_all_orders_are_drawn_alike():
    _, orders = many_draws(0.3)

    different, counts = np.unique(orders, axis=0, return_counts=True)

    assert [tuple(order) for order in different] == ORDERS
    np.testing.assert_allclose(counts / len(orders), 1 / 6, atol=0.015)


def test_an_image_is_adjusted_as_its_seed_draws(image):
    jitter = tf.function(lambda seed: color_jitter(tf.constant(image), seed, 0.4), autograph=False)
    views = []
    for example in range(8):
        seed = example_seed(0, 0, example)
        factors, order = map(np.asarray, draws(seed, 0.4))

        views.append(jitter(seed).numpy())

        expected = adjusted_by_pillow(image, factors.tolist(), order)
        # The compiled form may miss a level where a float's last bit decides about it.
        difference = np.abs(views[-1].astype(int) - expected)
        assert difference.max() <= 3
        assert difference.mean() < 0.001
        np.testing.assert_array_equal(views[-1], jitter(seed))
    assert len({view.tobytes() for view in views}) == 8


def test_a_strength_of_zero_changes_nothing(image):
    np.testing.assert_array_equal(color_jitter(image, example_seed(0, 0, 0), 0.0), image)
