"""What `fit`, `evaluate` and `predict` say of labels and images that do not fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import pit_keras
from pit_keras import losses

NUMBERS = np.arange(6) % 3
ROWS = keras.utils.to_categorical(NUMBERS)
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
CATEGORICAL = keras.losses.CategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def model():
    return pit_keras.create_model(
        "pit_ti",
        classes=3,
        input_shape=(16, 16, 3),
        patch_size=4,
        stride=2,
        head_dim=4,
        depths=(1, 1, 1),
    )


def images(scale=1.0):
    return (scale * np.random.default_rng(0).uniform(size=(6, 16, 16, 3))).astype("float32")


def dataset(labels, scale=1.0):
    return tf.data.Dataset.from_tensor_slices((images(scale), labels)).batch(4)


@pytest.mark.parametrize("form", ["arrays", "dataset"])
@pytest.mark.parametrize(
    ("loss", "labels", "problem"),
    [
        (SPARSE, ROWS, "rows .* use keras.losses.CategoricalCrossentropy"),
        ("sparse_categorical_crossentropy", ROWS, "rows"),
        (CATEGORICAL, NUMBERS, "class numbers .* use keras.losses.SparseCategoricalCrossentropy"),
        (losses.soft_cross_entropy, NUMBERS, "class numbers"),
        (CATEGORICAL, np.ones((6, 5)), "5 classes, pit_ti has 3; .* classes=5"),
    ],
)
def test_labels_that_do_not_fit(model, loss, labels, problem, form):
    model.compile("sgd", loss)
    data = (images(), labels) if form == "arrays" else (dataset(labels),)
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=problem):
            call(*data, verbose=0)


def test_class_numbers_beyond_the_models(model):
    model.compile("sgd", SPARSE)
    with pytest.raises(ValueError, match="The labels have 6 classes, pit_ti has 3"):
        model.fit(images(), np.arange(6), verbose=0)
    named = dataset(NUMBERS)
    named.class_names = ["a", "b"]
    with pytest.raises(ValueError, match="The labels have 2 classes, pit_ti has 3"):
        model.fit(named, verbose=0)


@pytest.mark.filterwarnings("error")
def test_right_data_is_taken_as_it_is(model):
    for loss, labels in ((SPARSE, NUMBERS), (SPARSE, NUMBERS[:, None]), (CATEGORICAL, ROWS)):
        model.compile("sgd", loss)
        model.fit(images(), labels, verbose=0)
        assert len(model.fit(dataset(labels), shuffle=False, verbose=0).history["loss"]) == 1


def test_images_that_are_not_normalised(model):
    model.compile("sgd", SPARSE)
    for data in ((images(255), NUMBERS), (dataset(NUMBERS, 255),)):
        with pytest.warns(UserWarning, match="reach 25.* pit_keras.preprocess_input"):
            model.evaluate(*data, verbose=0)
    with pytest.warns(UserWarning, match="pit_keras.preprocess_input"):
        model.predict(images(255), verbose=0)
