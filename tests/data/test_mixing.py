import numpy as np
import pytest
import tensorflow as tf

from pit_keras.data.mixing import cutmix, cutmix_box
from pit_keras.data.seeds import example_seed


def numbered_batch(count, height, width):
    """Images filled with their own number, and their one-hot labels."""
    images = np.broadcast_to(
        np.arange(count, dtype=np.uint8)[:, None, None, None], (count, height, width, 3)
    )
    return tf.constant(images), tf.eye(count)


@pytest.mark.parametrize("size", [(32, 32), (17, 40), (224, 224)])
@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_labels_are_the_exact_share_of_the_pixels(size, alpha):
    count = 5
    images, labels = numbered_batch(count, *size)
    mix = tf.function(lambda seed: cutmix(images, labels, seed, alpha))
    for example in range(30):
        mixed, mixed_labels = (t.numpy() for t in mix(example_seed(0, 0, example)))
        shown = [np.bincount(image[..., 0].ravel(), minlength=count) for image in mixed]
        expected = np.stack(shown) / np.float32(size[0] * size[1])
        np.testing.assert_allclose(mixed_labels, expected, rtol=1e-6, atol=1e-7)


def test_the_box_comes_from_the_reversed_batch():
    images = tf.random.stateless_uniform((4, 20, 30, 3), (1, 2))
    seed = example_seed(1, 2, 3)
    top, bottom, left, right = (int(edge) for edge in cutmix_box(20, 30, seed, 1.0))
    assert bottom > top
    assert right > left
    expected = images.numpy().copy()
    expected[:, top:bottom, left:right] = images.numpy()[::-1, top:bottom, left:right]
    mixed, _ = cutmix(images, tf.eye(4), seed, 1.0)
    np.testing.assert_array_equal(mixed, expected)


def reference_box(rng, height, width, alpha):
    """The box of CutMix's authors (and timm): clipped, centred on a uniform pixel."""
    cut = np.sqrt(1 - rng.beta(alpha, alpha))
    half_height, half_width = int(height * cut) // 2, int(width * cut) // 2
    row, column = rng.integers(height), rng.integers(width)
    top, bottom = np.clip([row - half_height, row + half_height], 0, height)
    left, right = np.clip([column - half_width, column + half_width], 0, width)
    return top, bottom, left, right


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_boxes_are_distributed_by_the_definition(alpha):
    draws, height, width = 4000, 64, 96
    rng = np.random.default_rng(0)
    dataset = tf.data.Dataset.range(draws).map(
        lambda example: tf.stack(cutmix_box(height, width, example_seed(0, 0, example), alpha))
    )
    drawn = np.stack(list(dataset.as_numpy_iterator()))
    expected = np.stack([reference_box(rng, height, width, alpha) for _ in range(draws)])

    def traits(boxes):
        top, bottom, left, right = boxes.T
        return np.stack([(bottom - top) * (right - left), top + bottom, left + right])

    for values, reference in zip(traits(drawn), traits(expected), strict=True):
        quantiles = np.quantile(reference, np.linspace(0.05, 0.95, 19))
        shares = (values[:, None] <= quantiles).mean(axis=0)
        expected_shares = (reference[:, None] <= quantiles).mean(axis=0)
        np.testing.assert_allclose(shares, expected_shares, atol=0.035)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_types_and_static_shapes_are_kept(dtype):
    images = tf.zeros((6, 10, 12, 3), dtype)
    dataset = tf.data.Dataset.range(1).map(
        lambda example: cutmix(images, tf.eye(6), example_seed(0, 0, example), 1.0)
    )
    assert dataset.element_spec == (
        tf.TensorSpec((6, 10, 12, 3), dtype),
        tf.TensorSpec((6, 6), tf.float32),
    )


@pytest.mark.parametrize("alpha", [0, -1.0])
def test_alpha_must_be_positive(alpha):
    with pytest.raises(ValueError, match="positive alpha"):
        cutmix(*numbered_batch(2, 8, 8), example_seed(0, 0, 0), alpha)
