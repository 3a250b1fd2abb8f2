import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from drawing import drawn
from tolerances import assert_close

from pit_keras.data.mixing import cutmix, cutmix_box, mix, mixup
from pit_keras.data.seeds import example_seed


def numbered_batch(count, height, width):
    """Images filled with their own number, and their one-hot labels."""
    images = np.broadcast_to(
        np.arange(count, dtype=np.uint8)[:, None, None, None], (count, height, width, 3)
    )
    return tf.constant(images), tf.eye(count)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("size", [(17, 40), *(pytest.param((s, s), marks=SLOW) for s in (32, 224))])
@pytest.mark.parametrize("alpha", [0.2, 1.0, pytest.param(5.0, marks=SLOW)])
def test_labels_are_the_exact_share_of_the_pixels(size, alpha):
    count = 5
    images, labels = numbered_batch(count, *size)
    mix = tf.function(lambda seed: cutmix(images, labels, seed, alpha), autograph=False)
    for example in range(30):
        mixed, mixed_labels = (t.numpy() for t in mix(example_seed(0, 0, example)))
        shown = [np.bincount(image[..., 0].ravel(), minlength=count) for image in mixed]
        # The share is one rounding, what is left of it one, and so are two products and their sum.
        expected = np.stack(shown) / (size[0] * size[1])
        assert_close(mixed_labels, expected, roundings=5, scale=1)


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
    """The box of CutMix's authors: clipped, centred on a uniform pixel.

    timm's was the same when PiT was trained; today's has an odd width where the cut has one.
    """
    cut = np.sqrt(1 - rng.beta(alpha, alpha))
    half_height, half_width = int(height * cut) // 2, int(width * cut) // 2
    row, column = rng.integers(height), rng.integers(width)
    top, bottom = np.clip([row - half_height, row + half_height], 0, height)
    left, right = np.clip([column - half_width, column + half_width], 0, width)
    return top, bottom, left, right


@pytest.mark.parametrize("alpha", [0.3, 1.0, pytest.param(4.0, marks=SLOW)])
def test_boxes_are_distributed_by_the_definition(alpha):
    draws, height, width = 4000, 64, 96
    rng = np.random.default_rng(0)
    actual = np.stack(drawn(lambda seed: cutmix_box(height, width, seed, alpha), draws), axis=1)
    expected = np.stack([reference_box(rng, height, width, alpha) for _ in range(draws)])

    def traits(boxes):
        top, bottom, left, right = boxes.T
        return np.stack([(bottom - top) * (right - left), top + bottom, left + right])

    for values, reference in zip(traits(actual), traits(expected), strict=True):
        quantiles = np.quantile(reference, np.linspace(0.05, 0.95, 19))
        shares = (values[:, None] <= quantiles).mean(axis=0)
        expected_shares = (reference[:, None] <= quantiles).mean(axis=0)
        np.testing.assert_allclose(shares, expected_shares, atol=0.035)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_types_and_static_shapes_are_kept(dtype):
    images = tf.zeros((6, 10, 12, 3), dtype)
    mixing = tf.function(lambda seed: cutmix(images, tf.eye(6), seed, 1.0), autograph=False)
    mixed, labels = mixing.get_concrete_function(tf.TensorSpec((2,), tf.int64)).outputs
    assert (mixed.shape, mixed.dtype) == (images.shape, dtype)
    assert (labels.shape, labels.dtype) == ((6, 6), tf.float32)


def constant_batch(count, size=(12, 10)):
    """Float images filled with their own number, and one-hot labels."""
    images, labels = numbered_batch(count, *size)
    return tf.cast(images, tf.float32), labels


def mixed_numbers(labels):
    """What a batch of constant images shows on average, from its labels."""
    return labels @ np.arange(labels.shape[1])


@pytest.mark.parametrize("count", [2, 5, pytest.param(8, marks=SLOW)])
@pytest.mark.parametrize("mode", ["batch", "element"])
@pytest.mark.parametrize("alphas", [(0.8, 1.0), (0.8, 0.0), (0.0, 1.0)])
def test_labels_are_the_shares_of_what_is_shown(alphas, mode, count):
    images, labels = constant_batch(count)
    mixing = tf.function(
        lambda seed: mix(
            images, labels, seed, mixup_alpha=alphas[0], cutmix_alpha=alphas[1], mode=mode
        ),
        autograph=False,
    )
    for example in range(20):
        mixed, mixed_labels = (t.numpy() for t in mixing(example_seed(0, 0, example)))

        # A share and what is left of it: two roundings, and one for each class that is added.
        assert_close(mixed_labels.sum(axis=1), np.ones(count), roundings=2 + count)
        assert (mixed_labels >= 0).all()
        assert (mixed_labels[(np.eye(count) + np.eye(count)[::-1]) == 0] == 0).all()
        # Blending is five roundings; the share of an image's own mixing is a sum of its pixels.
        shown = mixed.mean(axis=(1, 2, 3), dtype="float64")
        pixels = mixed.shape[1] * mixed.shape[2]
        expected = mixed_numbers(mixed_labels.astype("float64"))
        assert_close(shown, expected, roundings=5 + pixels, scale=count)


@pytest.mark.parametrize("mode", ["batch", "element"])
def test_the_middle_image_of_an_odd_batch_is_mixed_with_itself(mode):
    images, labels = tf.random.stateless_uniform((5, 6, 7, 3), (1, 2)), tf.eye(5)
    for example in range(6):
        mixed, mixed_labels = mix(
            images,
            labels,
            example_seed(0, 0, example),
            mixup_alpha=0.8,
            cutmix_alpha=1.0,
            mode=mode,
        )

        # What is left of the share, two products and their sum.
        assert_close(mixed[2], images[2], roundings=4)
        assert_close(mixed_labels[2], labels[2], roundings=4)


def test_mixup_weighs_all_pixels_alike():
    images = tf.random.stateless_uniform((4, 6, 7, 3), (1, 2))
    labels = tf.eye(4)

    mixed, mixed_labels = mixup(images, labels, example_seed(0, 0, 5), 0.8)

    kept = float(mixed_labels[0, 0])
    images, labels = (np.asarray(part, "float64") for part in (images, labels))
    # What is left of the share, two products and their sum.
    assert_close(mixed, kept * images + (1 - kept) * images[::-1], roundings=4, scale=1)
    assert_close(mixed_labels, kept * labels + (1 - kept) * labels[::-1], roundings=4, scale=1)


@pytest.mark.parametrize("alpha", [0.3, 0.8, pytest.param(1.0, marks=SLOW)])
def test_mixups_lambda_has_the_quantiles_of_its_beta_distribution(alpha):
    images, labels = constant_batch(2, (1, 1))
    shares = drawn(lambda seed: mixup(images, labels, seed, alpha)[1][0, 0], 4000)

    levels = np.linspace(0.1, 0.9, 9)
    expected = np.quantile(np.random.default_rng(0).beta(alpha, alpha, 400_000), levels)
    np.testing.assert_allclose((shares[:, None] <= expected).mean(axis=0), levels, atol=0.025)


def element_shares(count, size, **alphas):
    """What is kept of each label where every image is mixed its own way: (count,)."""
    labels = tf.one_hot([0] * count + [1] * count, 2)  # partners are of different classes
    images = tf.zeros((2 * count, *size, 1))
    _, mixed = mix(images, labels, example_seed(0, 0, 0), **alphas, mode="element")
    shares = (mixed * labels).numpy().sum(axis=1)
    assert (
        shares[:count] != shares[: count - 1 : -1]
    ).mean() > 0.9  # partners draw each on their own
    return shares[:count]


@pytest.mark.parametrize("alpha", [0.8, 1.0])
def test_the_lambdas_of_elements_have_the_quantiles_of_their_beta_distribution(alpha):
    shares = element_shares(4000, (1, 1), mixup_alpha=alpha)

    levels = np.linspace(0.05, 0.95, 19)
    expected = scipy.stats.beta(alpha, alpha).ppf(levels)
    np.testing.assert_allclose((shares[:, None] <= expected).mean(axis=0), levels, atol=0.024)


def test_the_boxes_of_elements_are_distributed_by_the_definition():
    count, (height, width) = 3000, (32, 24)
    kept = element_shares(count, (height, width), cutmix_alpha=1.0)

    rng = np.random.default_rng(0)
    boxes = np.array([reference_box(rng, height, width, 1.0) for _ in range(count)])
    top, bottom, left, right = boxes.T
    expected = 1 - (bottom - top) * (right - left) / (height * width)
    levels = np.quantile(expected, np.linspace(0.05, 0.95, 19))
    shares, expected = ((part[:, None] <= levels + 1e-6).mean(axis=0) for part in (kept, expected))
    np.testing.assert_allclose(shares, expected, atol=0.039)


def is_cutmix(images):
    """Whether constant images were mixed by boxes: every pixel shows one whole number."""
    return (images == images.round()).all(axis=(1, 2, 3))


def test_one_of_the_two_is_drawn_for_the_batch_with_equal_chance():
    images, labels = constant_batch(4)
    mixed = drawn(lambda seed: mix(images, labels, seed, mixup_alpha=0.8, cutmix_alpha=1.0)[0], 600)

    cut = np.stack([is_cutmix(batch) for batch in mixed])

    assert (cut.all(axis=1) | ~cut.any(axis=1)).mean() > 0.99  # MixUp of a lambda of 0 or 1 is rare
    assert abs(cut.mean() - 0.5) < 0.06


def test_elements_are_mixed_independently():
    images, labels = constant_batch(200, (40, 40))

    mixed, mixed_labels = mix(
        images, labels, example_seed(0, 0, 0), mixup_alpha=0.8, cutmix_alpha=1.0, mode="element"
    )

    assert 70 < is_cutmix(mixed.numpy()).sum() < 130
    assert len(np.unique(np.diag(mixed_labels.numpy()))) > 150


def test_without_alphas_nothing_is_mixed():
    images, labels = constant_batch(3)

    mixed, mixed_labels = mix(images, labels, example_seed(0, 0, 0))

    np.testing.assert_array_equal(mixed, images)
    np.testing.assert_array_equal(mixed_labels, labels)
