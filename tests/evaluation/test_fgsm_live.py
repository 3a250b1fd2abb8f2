"""FGSM against foolbox's on the same model, through its TensorFlow backend."""

import foolbox
import keras
import numpy as np
import pytest
import tensorflow as tf
from tolerances import assert_close

from pit_keras import create_model
from pit_keras.data.labelled_images import open_source
from pit_keras.evaluation.fgsm import fgsm_gradient, fgsm_images
from pit_keras.imagenet import IMAGENET_MEAN, IMAGENET_STD

IMAGES = 64


@pytest.fixture(scope="module", params=["pit_ti", "pit_ti_distilled"])
def model(request):
    keras.utils.set_random_seed(3)
    return create_model(
        request.param,
        input_shape=(32, 32, 3),
        patch_size=4,
        stride=4,
        head_dim=8,
        depths=(1, 1, 1),
        classes=10,
    )


@pytest.fixture(scope="module")
def images():
    """Digits in 0..1, of which many pixels are 0, and their labels."""
    source = open_source("digits")
    pixels = tf.image.resize(source.images["val"][:IMAGES], (32, 32)) / 255
    return pixels, source.labels["val"][:IMAGES]


@pytest.mark.parametrize("epsilon", [8 / 255, 2 / 255, 0.3])
def test_the_attacked_images_are_foolboxs(model, images, epsilon):
    pixels, labels = images
    preprocessing = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    wrapped = foolbox.TensorFlowModel(model, bounds=(0, 1), preprocessing=preprocessing)
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    _, theirs, _ = attack(wrapped, pixels, labels, epsilons=epsilon)

    normalised = (pixels - IMAGENET_MEAN) / IMAGENET_STD
    gradient, _ = fgsm_gradient(model, normalised, labels)
    ours = fgsm_images(normalised, gradient, epsilon, IMAGENET_MEAN, IMAGENET_STD)

    ours = ours * IMAGENET_STD + IMAGENET_MEAN
    assert (np.abs(theirs - pixels) > 1e-6).mean() > 0.5
    # The image, the step, their sum and the way back to a pixel, of both.
    assert_close(ours, theirs, roundings=8, scale=1)
    answers = [model((x - IMAGENET_MEAN) / IMAGENET_STD).numpy() for x in (ours, theirs)]
    np.testing.assert_array_equal(*(logits.argmax(axis=-1) for logits in answers))
