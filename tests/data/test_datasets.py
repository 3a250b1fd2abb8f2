"""Data sets and augmentation for `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import pit_keras
from pit_keras import data


@pytest.fixture(scope="module")
def recipe():
    recipe = pit_keras.recipe("cutmix", model="pit_s")
    recipe.data.crop_scale = (0.5, 1.0)
    return recipe


def passes(dataset, count=1):
    """(images, labels) of so many passes, each of one array."""
    for _ in range(count):
        batches = list(dataset)
        yield tuple(np.concatenate([batch[i] for batch in batches]) for i in (0, 1))


def test_training_images_are_drawn_anew_in_each_pass_and_by_the_seed_alone(recipe):
    options = {"image_size": (16, 24), "batch_size": 400, "recipe": recipe}
    first, second = passes(data.digits(**options), 2)
    (again,) = passes(data.digits(**options))
    (other,) = passes(data.digits(**options, seed=1))

    assert first[0].shape == (1200, 16, 24, 3)  # full batches of 1,437 images
    assert first[1].shape == (1200, 10)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    for different in (second, other):
        assert not np.array_equal(first[1], different[1])
    # CutMix shares a label between two classes; float32 adds the shares.
    np.testing.assert_allclose(first[1].sum(axis=1), 1, atol=1e-6)
    assert ((first[1] > 0).sum(axis=1) == 2).any()


def test_validation_images_are_each_there_once(recipe):
    dataset = data.digits(16, 100, training=False, recipe=recipe)
    assert len(dataset) == 4
    ((images, labels),) = passes(dataset)
    assert images.shape == (360, 16, 16, 3)
    assert set(np.unique(labels)) == {0, 1}
    assert dataset.class_names == list("0123456789")


def test_a_folder_trains_a_model(image_folder):
    train = data.image_folder(image_folder, 16, 8, recipe="deit")
    val = data.image_folder(image_folder, 16, 8, training=False)
    model = pit_keras.create_model(
        "pit_ti",
        classes=len(train.class_names),
        input_shape=(16, 16, 3),
        patch_size=4,
        stride=2,
        head_dim=4,
        depths=(1, 1, 1),
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], run_eagerly=True)
    history = model.fit(train, validation_data=val, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"] + history["val_loss"]).all()


def test_a_prepared_tfds_data_set(squares):
    ((images, labels),) = passes(data.tfds("squares", 8, 4, training=False, data_dir=squares))
    assert images.shape[1:] == (8, 8, 3)
    assert len(images) == len(labels) > 0


def test_mistakes_are_told_at_once(image_folder):
    with pytest.raises(ValueError, match="Unknown recipe 'diet'"):
        data.digits(recipe="diet")
    with pytest.raises(ValueError, match="between 1 and the"):
        data.image_folder(image_folder, batch_size=10_000)
    with pytest.raises(FileNotFoundError, match="no folder"):
        data.image_folder(image_folder / "missing")


def batches(scale=1.0, dtype=tf.float32):
    images = np.random.default_rng(0).uniform(size=(8, 32, 32, 3)) * scale
    labels = keras.utils.to_categorical(np.arange(8) % 4)
    return tf.data.Dataset.from_tensor_slices((tf.cast(images, dtype), labels)).batch(4)


@pytest.mark.parametrize(
    ("function", "scale", "dtype"),
    [
        (data.cutmix, 255, tf.uint8),
        (data.mixup, 1, tf.float32),
        (data.rand_augment, 255, tf.float32),
        (data.random_erasing, 1, tf.float32),
    ],
)
def test_augmentation_is_a_function_of_seed_and_batch(function, scale, dtype):
    plain = batches(scale, dtype)
    options = {"probability": 1.0} if function is data.random_erasing else {}
    once, again, other = (
        next(passes(plain.map(function(**options, seed=seed)))) for seed in (0, 0, 1)
    )
    ((images, labels),) = passes(plain)

    np.testing.assert_array_equal(once[0], again[0])
    assert once[0].dtype == dtype.as_numpy_dtype
    assert not np.array_equal(once[0], images)
    assert not np.array_equal(once[0], other[0])
    if function in (data.cutmix, data.mixup):
        np.testing.assert_allclose(once[1].sum(axis=1), 1, atol=1e-6)
        assert not np.array_equal(once[1], labels)
    else:
        np.testing.assert_array_equal(once[1], labels)


def test_a_batch_is_mixed_otherwise_in_other_company():
    """A data set that is shuffled anew is mixed anew, and two batches differ."""
    mixed = batches().map(data.cutmix())
    halves = [np.asarray(labels) for _, labels in mixed]
    assert not np.array_equal(halves[0], halves[1])


def test_images_of_a_batch_are_augmented_one_by_one():
    same = tf.data.Dataset.from_tensors((tf.fill((8, 32, 32, 3), 0.5), tf.zeros((8, 2))))
    ((images, _),) = passes(same.map(data.random_erasing(probability=0.5)))
    erased = np.any(images != 0.5, axis=(1, 2, 3))
    assert 0 < erased.sum() < 8


def test_class_numbers_cannot_be_mixed():
    numbers = tf.data.Dataset.from_tensor_slices((tf.zeros((4, 8, 8, 3)), [0, 1, 2, 3])).batch(2)
    with pytest.raises(ValueError, match="label_mode='categorical' gives; got int32"):
        numbers.map(data.mixup())
