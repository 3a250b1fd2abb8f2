"""The names of ImageNet's classes, its preprocessing, and the public names of the package."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_datasets.datasets.imagenet2012 import imagenet_common

import pit_keras
from pit_keras import imagenet
from pit_keras.data.preprocessing import normalise
from pit_keras.imagenet import CLASSES, class_names, in_words, synsets


def test_there_are_a_thousand_classes_in_wordnets_order():
    ids = [synset for synset, _ in synsets()]
    assert len(ids) == CLASSES
    assert ids == sorted(set(ids))
    assert synsets()[0] == ("n01440764", ("tench", "Tinca tinca"))
    assert synsets()[999][0] == "n15075141"


def test_the_classes_are_those_of_tfds_in_the_same_order():
    with open(imagenet_common.label_names_file()) as file:
        assert [synset for synset, _ in synsets()] == file.read().split()


def test_wordnets_ids_become_names_and_others_stay():
    assert in_words(synset for synset, _ in synsets()) == class_names()
    assert in_words(class_names()) == class_names()
    assert in_words(["n03126707", "cat", "n01440764"]) == ("crane (n03126707)", "cat", "tench")


def test_every_class_has_a_name_of_its_own():
    names = class_names()
    assert len(set(names)) == CLASSES
    assert (names[0], names[207], names[817]) == ("tench", "golden retriever", "sports car")
    assert names[134] == "crane (n02012849)"
    assert names[517] == "crane (n03126707)"


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_preprocessing_is_the_pipelines_own(dtype):
    """Arrays, tensors and `tf.data` alike."""
    images = np.random.default_rng(0).integers(0, 256, size=(2, 3, 4, 3)).astype(dtype)
    expected = np.asarray(normalise(images, imagenet.IMAGENET_MEAN, imagenet.IMAGENET_STD))
    dataset = tf.data.Dataset.from_tensors(images).map(pit_keras.preprocess_input)
    for given in (images, tf.constant(images), images.tolist()):
        result = pit_keras.preprocess_input(given)
        assert keras.backend.standardize_dtype(result.dtype) == "float32"
        # A division and a product by the inverse, a difference and a sum: some roundings of 5.
        np.testing.assert_allclose(result, expected, rtol=0, atol=8 * 6e-8 * 5)
    np.testing.assert_allclose(next(iter(dataset)), expected, rtol=0, atol=8 * 6e-8 * 5)
    first = np.moveaxis(images, -1, 1)
    moved = np.moveaxis(pit_keras.preprocess_input(first, data_format="channels_first"), 1, -1)
    np.testing.assert_array_equal(moved, pit_keras.preprocess_input(images))


def test_predictions_are_decoded_from_logits_and_from_probabilities():
    logits = np.random.default_rng(0).normal(size=(2, 1000))
    logits[0, 207], logits[1, 134] = 20.0, 30.0
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    decoded = pit_keras.decode_predictions(logits, top=3)
    assert [len(each) for each in decoded] == [3, 3]
    assert decoded[0][0][:2] == ("n02099601", "golden retriever")
    assert decoded[1][0][:2] == ("n02012849", "crane (n02012849)")
    for scores in (decoded, pit_keras.decode_predictions(probabilities, top=3)):
        best = [each[0][2] for each in scores]
        np.testing.assert_allclose(best, probabilities.max(axis=1))


def test_only_imagenets_predictions_are_decoded():
    with pytest.raises(ValueError, match=r"ImageNet's \(B, 1000\); got \(2, 10\)"):
        pit_keras.decode_predictions(np.zeros((2, 10)))


def test_the_public_names():
    for name in pit_keras.__all__:
        assert getattr(pit_keras, name) is not None
    assert set(pit_keras.__all__) <= set(dir(pit_keras))
    assert pit_keras.recipe("deit", model="pit_b").data.views == 3
    with pytest.raises(AttributeError, match="no attribute 'creat_model'"):
        _ = pit_keras.creat_model
    with pytest.raises(AttributeError, match="no attribute 'cutmixx'"):
        _ = pit_keras.data.cutmixx
