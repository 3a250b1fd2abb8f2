import numpy as np
import pytest
import tensorflow as tf
from drawing import drawn
from sklearn.datasets import load_sample_images

from pit_keras.data.augmentation_policy import OPERATIONS, _compiled, draws, rand_augment
from pit_keras.data.seeds import example_seed

FILL = (124, 116, 104)
POLICY = (9.0, 0.5)  # magnitude and its deviation
POINT_OPERATIONS = list(OPERATIONS)[:3] + list(OPERATIONS)[4:7]


@pytest.fixture(scope="module")
def image():
    return tf.constant(load_sample_images().images[0][100:140, 200:256])


@pytest.fixture(scope="module")
def many_draws():
    """Operations, levels and signs of 6,000 images."""
    return drawn(lambda seed: draws(seed, *POLICY), 6000)


def test_operations_are_drawn_alike_and_applied_half_the_time(many_draws):
    choices, levels, signs = many_draws

    assert choices.shape == levels.shape == signs.shape == (6000, 2)
    shares = np.bincount(choices.ravel(), minlength=16) / choices.size
    np.testing.assert_allclose(shares[:15], 0.5 / 15, atol=0.006)
    assert abs(shares[15] - 0.5) < 0.02
    # With replacement, and the second independent of the first.
    both = choices[(choices < 15).all(axis=1)]
    assert abs((both[:, 0] == both[:, 1]).mean() - 1 / 15) < 0.025
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.03


def test_levels_are_normal_and_clipped(many_draws):
    _, levels, _ = many_draws

    expected = np.clip(np.random.default_rng(0).normal(0.9, 0.05, 200_000), 0, 1)
    quantiles = np.linspace(0.02, 0.98, 25)
    np.testing.assert_allclose(
        np.quantile(levels, quantiles), np.quantile(expected, quantiles), atol=0.004
    )
    assert levels.max() == 1.0


def test_levels_do_not_depend_on_the_operation_or_the_sign(many_draws):
    choices, levels, signs = many_draws

    for other in (choices, signs, choices[:, ::-1]):
        assert abs(np.corrcoef(levels.ravel(), other.ravel())[0, 1]) < 0.03


# The other two are compiled in parts, however they are called; their pixels are Pillow's, see
# test_image_operations.py.
@pytest.mark.parametrize("name", [n for n in OPERATIONS if n not in ("Equalize", "Rotate")])
def test_compiled_operations_give_the_same_pixels(name, image):
    operation, compiled = OPERATIONS[name], _compiled[list(OPERATIONS).index(name)]
    assert compiled is not operation
    arguments = image, tf.constant(0.87), tf.constant(-1.0), FILL

    actual = compiled(*arguments)

    difference = np.abs(actual.numpy().astype(int) - operation(*arguments).numpy())
    # Where the fraction is cut off, the last bit of a float decides about a level.
    assert difference.max() <= (0 if name in POINT_OPERATIONS else 1)
    assert difference.mean() < 0.01


def test_an_image_depends_on_its_seed_alone(image):
    views, again = (
        drawn(lambda seed: rand_augment(image, seed, *POLICY, FILL), count) for count in (12, 5)
    )

    assert views.shape == (12, *image.shape)
    np.testing.assert_array_equal(views[:5], again)
    assert len({view.tobytes() for view in views}) > 6


def test_operations_that_are_not_applied_leave_the_image(image, monkeypatch):
    monkeypatch.setattr("pit_keras.data.augmentation_policy.PROBABILITY", 0.0)

    np.testing.assert_array_equal(rand_augment(image, example_seed(0, 0, 0), *POLICY, FILL), image)


def test_levels_become_the_arguments_of_the_reference():
    flat = tf.fill((2, 2, 3), tf.constant(100, tf.uint8))
    ramp = tf.constant(np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3))

    def applied(name, image, level, sign=1.0):
        return np.asarray(OPERATIONS[name](image, tf.constant(level), sign, FILL))

    # At a level of 0.9: 4 - int(3.6) = 1 bit, a threshold of 256 - int(230.4) = 26, int(99) added.
    assert set(np.unique(applied("PosterizeIncreasing", ramp, 0.9))) == {0, 128}
    np.testing.assert_array_equal(
        applied("SolarizeIncreasing", ramp, 0.9),
        np.where(np.asarray(ramp) < 26, ramp, 255 - np.asarray(ramp)),
    )
    assert applied("SolarizeAdd", flat, 0.9).flat[0] == 199
    # 1 - 0.81 and 1 + 0.81 of the brightness, never below a tenth of it.
    assert applied("BrightnessIncreasing", flat, 0.9, -1.0).flat[0] == 19
    assert applied("BrightnessIncreasing", flat, 0.9, 1.0).flat[0] == 181
    assert applied("BrightnessIncreasing", flat, 1.0, -1.0).flat[0] == 10
