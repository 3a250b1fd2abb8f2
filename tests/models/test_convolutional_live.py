"""ResNet-50 and RegNetY-16GF equal to torchvision's and timm's, live: statistics and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import timm
import torch
import torchvision
from tolerances import assert_close, random_walk, terms_along

import pit_keras

SMALL_REGNET = {"w0": 16, "wa": 16.0, "wm": 1.8, "group_size": 8, "depth": 5}


def perturbed(module):
    """Initial weights plus noise, and statistics that are not 0 and 1."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.03)
        for name, statistics in module.named_buffers():
            if name.endswith("running_mean"):
                statistics.normal_(0, 0.3)
            elif name.endswith("running_var"):
                statistics.uniform_(0.5, 2)
    return module


def random_images(height, width):
    return np.random.default_rng(0).normal(size=(2, height, width, 3)).astype("float32")


def channels_first(array):
    return torch.from_numpy(array).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("name", "reference", "arguments"),
    [
        ("resnet50", lambda: torchvision.models.resnet50(num_classes=50), {}),
        (
            "resnet50",
            lambda: torchvision.models.resnet50(
                num_classes=50, replace_stride_with_dilation=[False, False, True]
            ),
            {"output_stride": 16},
        ),
        ("regnety_160", lambda: timm.create_model("regnety_160", num_classes=50), {}),
    ],
)
@pytest.mark.parametrize("size", [(66, 97), (130, 64)])
def test_logits_at_other_sizes(name, reference, arguments, size):
    torch.manual_seed(0)
    reference = perturbed(reference()).eval()
    model = pit_keras.create_model(name, input_shape=(*size, 3), classes=50, **arguments)
    pit_keras.load_pytorch_weights(model, reference.state_dict())
    images = random_images(*size)

    with torch.inference_mode():
        expected = reference(channels_first(images)).numpy()

    assert_close(model(images), expected, roundings=random_walk(terms_along(model)))


def small_pair():
    """timm's RegNetY with small stages, and ours."""
    torch.manual_seed(0)
    config = timm.models.regnet.RegNetCfg(se_ratio=0.25, **SMALL_REGNET)
    reference = perturbed(timm.models.regnet.RegNet(config, num_classes=10))
    stages = [getattr(reference, f"s{stage}") for stage in (1, 2, 3, 4)]
    sizes = {
        "stage_widths": tuple(stage.b1.conv3.conv.out_channels for stage in stages),
        "depths": tuple(len(list(stage.children())) for stage in stages),
        "group_width": SMALL_REGNET["group_size"],
    }
    models = [
        pit_keras.create_model("regnety_160", input_shape=(64, 48, 3), classes=10, **sizes)
        for _ in range(2)
    ]
    return reference, *models


def test_gradients_of_every_weight_with_the_statistics_of_the_batch():
    reference, model, gradients_in_place = small_pair()
    pit_keras.load_pytorch_weights(model, reference.state_dict())
    images, labels = random_images(64, 48), np.array([3, 8])

    logits = reference(channels_first(images))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(
            labels, model(images, training=True), from_logits=True
        )
        loss = keras.ops.mean(losses)
    gradients = tape.gradient(loss, model.trainable_variables)

    # A gradient has its weight's layout, so that it can be converted like one.
    in_place = {key: value.grad for key, value in reference.named_parameters()}
    statistics = {key: value for key, value in reference.state_dict().items() if "running" in key}
    pit_keras.load_pytorch_weights(gradients_in_place, {**in_place, **statistics})
    roundings = 2 * terms_along(model, batch=len(images))  # there and back
    for gradient, expected in zip(gradients, gradients_in_place.trainable_variables, strict=True):
        assert_close(gradient, expected.numpy(), roundings=roundings)
