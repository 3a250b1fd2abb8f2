import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pit_keras.data.fast_resize import fast_resize
from pit_keras.data.preprocessing import resize

# Enlarged, of the same size, shrunk with each number of neighbours that there is, and beyond.
SHAPES = [(1, 1), (2, 90), (30, 41), (64, 48), (70, 52), (95, 61), (96, 72), (120, 80), (128, 97)]
SHAPES += [(160, 100), (161, 144), (256, 192), (257, 30), (400, 600)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pixels_are_those_of_resize(shape, photographs):
    image = photographs[0][: shape[0], : shape[1]]
    expected = resize(image, (64, 48)).numpy().astype(int)

    resized = fast_resize(image, (64, 48))

    assert resized.dtype == tf.uint8
    difference = np.abs(resized.numpy() - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("largest", [(30, 40), (64, 48), (90, 40), (60, 70), (400, 600)], ids=str)
def test_a_known_largest_size_changes_no_pixel(largest, photographs):
    for height, width in (largest, (largest[0], 9), (9, largest[1])):
        image = photographs[0][:height, :width]
        known = fast_resize(image, (64, 48), largest=largest)
        np.testing.assert_array_equal(known, fast_resize(image, (64, 48)))


@pytest.mark.parametrize(
    "shape", [(375, 500), (150, 170), pytest.param((330, 270), marks=pytest.mark.slow)], ids=str
)
def test_pixels_agree_with_pillow(shape, photographs):
    image = Image.fromarray(photographs[1][: shape[0], : shape[1]])
    expected = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)).astype(int)

    difference = np.abs(fast_resize(np.asarray(image), (224, 224)).numpy() - expected)

    assert difference.mean() < 0.19
    assert np.quantile(difference, 0.999) <= 2


@pytest.mark.parametrize("shape", [(80, 90), (400, 30)], ids=str)
def test_mirroring_is_exact(shape, photographs):
    image = photographs[0][: shape[0], : shape[1]]

    straight, mirrored = (fast_resize(image, (64, 48), side).numpy() for side in (False, True))

    np.testing.assert_array_equal(mirrored, straight[:, ::-1])


def test_levels_do_not_overflow():
    edge = np.zeros((20, 20, 3), np.uint8)
    edge[:, 10:] = 255  # the kernel overshoots on both sides

    enlarged = fast_resize(edge, (64, 48)).numpy()

    assert (enlarged[:, :16] == 0).all()
    assert (enlarged[:, 32:] == 255).all()
    assert (np.diff(enlarged[0, 22:27, 0].astype(int)) >= 0).all()


def test_sizes_may_be_unknown_while_tracing(photographs):
    crops = [photographs[0][:height, :width] for height, width in [(9, 70), (90, 60)]]

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)], autograph=False)
    def resized(image):
        return fast_resize(image, (64, 48), tf.constant(True))

    assert resized.get_concrete_function().outputs[0].shape == (64, 48, 3)
    for crop in crops:
        np.testing.assert_array_equal(resized(crop), fast_resize(crop, (64, 48), True))
