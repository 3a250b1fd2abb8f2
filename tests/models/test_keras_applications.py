"""The networks of `keras.applications` under our names, on our images."""

import inspect

import keras
import numpy as np
import pytest
from shapes_only import shapes_only
from tolerances import assert_close, terms_along

import pit_keras
from pit_keras.imagenet import IMAGENET_MEAN, IMAGENET_STD
from pit_keras.models import variant_of
from pit_keras.models.cost import count_macs, count_parameters
from pit_keras.models.keras_applications import VARIANTS, PixelEncoding

SMALLEST = "mobilenet_v3_small"

# Parameters that are trained, and the published 10^9 multiply-accumulates at the published size.
COST = {
    "resnet101": (44_601_832, 7.57),
    "mobilenet_v2": (3_504_872, 0.30),
    "mobilenet_v3_small": (2_542_856, 0.06),
    "mobilenet_v3_large": (5_483_032, 0.22),
    "efficientnet_b0": (5_288_548, 0.39),
    "efficientnet_b1": (7_794_184, 0.70),
}


@pytest.fixture(scope="module")
def network():
    """The smallest network, for tests that change nothing."""
    return pit_keras.create_model(SMALLEST, input_shape=(64, 48, 3), classes=7)


@pytest.mark.parametrize("name", COST)
def test_parameters_and_cost_are_the_published_ones(name):
    size = variant_of(name).image_size
    model = shapes_only(name, input_shape=(size, size, 3))
    parameters, macs = COST[name]
    assert count_parameters(model) == parameters
    assert count_macs(model) / 1e9 == pytest.approx(macs, abs=0.02)
    assert model.output_shape == (None, 1000)
    assert model.name == name


@pytest.mark.parametrize("name", VARIANTS)
def test_the_network_sees_what_its_own_preprocessing_would_give(name):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype("float32")
    normalised = (pixels / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    constructor = getattr(keras.applications, VARIANTS[name].constructor)
    module = inspect.getmodule(inspect.unwrap(constructor))

    encoded = PixelEncoding(VARIANTS[name].encoding)(normalised.astype("float32"))

    # Normalised and back again: a division, two products, three sums, of numbers up to 255.
    expected = module.preprocess_input(pixels.copy())
    assert_close(encoded, expected, roundings=8, scale=255)


def test_the_logits_are_those_of_the_network_in_keras(network):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3)).astype("float32")
    normalised = (pixels / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    reference = keras.applications.MobileNetV3Small(
        input_shape=(64, 48, 3), weights=None, classes=7, classifier_activation=None
    )
    reference.set_weights(network.get_weights())

    expected = np.asarray(reference(pixels))

    assert_close(network(normalised), expected, roundings=terms_along(network))


def test_without_top_and_with_an_activation():
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    settings = {"input_shape": (32, 32, 3), "classes": 5}
    assert pit_keras.create_model(SMALLEST, include_top=False, **settings)(images).shape == (2, 576)
    model = pit_keras.create_model(SMALLEST, classifier_activation="softmax", **settings)
    assert_close(np.asarray(model(images)).sum(-1), np.ones(2), roundings=2 * 5)


def test_mixed_precision_answers_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = pit_keras.create_model(SMALLEST, input_shape=(32, 32, 3), classes=5)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("pixel_encoding").output.dtype == "float32"
    assert model.get_layer("conv").compute_dtype == "bfloat16"
    assert model.output.dtype == "float32"


def test_a_saved_model_loads_and_computes_the_same(network, tmp_path):
    images = np.random.default_rng(0).normal(size=(2, 64, 48, 3)).astype("float32")
    network.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), network(images))


def test_imagenet_weights_are_asked_of_keras(monkeypatch):
    asked = []

    def download(weights, **arguments):
        asked.append(weights)
        raise ConnectionError

    monkeypatch.setattr(keras.applications, "MobileNetV3Small", download)
    for arguments in (
        {"weights": "imagenet"},
        {},
        {"weights": "imagenet", "include_top": False, "classes": 5},
    ):
        with pytest.raises(ConnectionError):
            pit_keras.create_model(SMALLEST, **arguments)
    assert asked == ["imagenet", None, "imagenet"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drop_rate": 0.1}, " drop_rate of mobilenet_v3_small must be 0; got 0.1"),
        ({"attention_drop_rate": 0.1}, "attention_drop_rate of mobilenet_v3_small must be 0"),
        ({"drop_path_rate": 0.1}, "drop_path_rate of mobilenet_v3_small must be 0"),
        ({"input_shape": (32, 32, 1)}, "RGB images: input_shape must end in 3"),
        ({"input_shape": (31, 64, 3)}, "31 x 64 pixels is too small: .* takes 32 x 32 or more"),
        ({"weights": "imagenet", "classes": 5}, "should be 1000"),
        ({"constructor": "VGG16"}, "no argument 'constructor'"),
        ({"weights": "noisy_student"}, "Unknown weights 'noisy_student'"),
    ],
)
def test_bad_input_is_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        pit_keras.create_model(SMALLEST, **arguments)
