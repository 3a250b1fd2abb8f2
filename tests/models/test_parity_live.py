"""Numbers equal to timm's PyTorch models, live: other sizes, other weights, and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import timm
import torch
from fixed_weights import TIMM_NAMES
from timm.models.pit import Pooling, PoolingVisionTransformer
from tolerances import assert_close, random_walk, terms_along

import pit_keras
from pit_keras.models import stage_features
from pit_keras.models.pooling import TokenPooling


def perturbed(module):
    """timm's own initial weights plus noise, so that no bias is zero and no scale one."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.03)
    return module.eval()


def random_images(height, width):
    return np.random.default_rng(0).normal(size=(2, height, width, 3)).astype("float32")


def channels_first(array):
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def channels_last(tensor):
    return tensor.detach().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("pit_ti", (256, 192)),  # grids 31 x 23, 16 x 12, 8 x 6
        ("pit_s_distilled", (104, 160)),  # grids 12 x 19, 6 x 10, 3 x 5
        ("vit_ti_distilled", (160, 96)),
    ],
)
def test_logits_and_every_stage(name, size):
    torch.manual_seed(0)
    reference = perturbed(timm.create_model(TIMM_NAMES[name], img_size=size, num_classes=50))
    model = pit_keras.create_model(name, input_shape=(*size, 3), classes=50)
    pit_keras.load_pytorch_weights(model, reference.state_dict())
    both = keras.Model(model.input, [model.output, *stage_features(model).outputs])
    images = random_images(*size)

    with torch.inference_mode():
        expected_logits = reference(channels_first(images)).numpy()
        expected_maps = reference.forward_intermediates(
            channels_first(images),
            indices=[11] if name.startswith("vit") else None,
            norm=False,
            intermediates_only=True,
        )
    logits, *maps = both(images)

    roundings = random_walk(terms_along(model))
    assert_close(logits, expected_logits, roundings=roundings)
    assert len(maps) == len(expected_maps) == (1 if name.startswith("vit") else 3)
    for feature_map, expected in zip(maps, expected_maps, strict=True):
        assert_close(feature_map, channels_last(expected), roundings=roundings)


@pytest.mark.parametrize("grid", [(7, 7), (8, 8), (8, 7), (5, 12), (2, 3)])
def test_token_pooling_alone(grid):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(2, 2, 6)).astype("float32")
    feature_map = rng.normal(size=(2, *grid, 6)).astype("float32")
    reference, pooling = Pooling(6, 12, stride=2), TokenPooling(multiplier=2)
    pooling.build([tokens.shape, feature_map.shape])
    kernel = (
        reference.conv.weight.detach().numpy().reshape(6, 2, 3, 3)
    )  # (2C, 1, ...) -> (C, 2, ...)
    pooling.depthwise_conv.set_weights(
        [kernel.transpose(2, 3, 0, 1), reference.conv.bias.detach().numpy()]
    )
    pooling.class_dense.set_weights(
        [reference.fc.weight.detach().numpy().T, reference.fc.bias.detach().numpy()]
    )

    expected_map, expected_tokens = reference(channels_first(feature_map), torch.from_numpy(tokens))
    pooled = pooling([tokens, feature_map])

    assert_close(pooled[:, :2], expected_tokens.detach().numpy(), roundings=6 + 1)
    # Nine taps and a bias.
    assert_close(pooled[:, 2:], channels_last(expected_map).reshape(2, -1, 12), roundings=9 + 1)


@pytest.mark.parametrize("distilled", [False, True])
def test_gradients_of_every_weight(distilled):
    torch.manual_seed(0)
    sizes = {"patch_size": 4, "stride": 2}
    reference = perturbed(
        PoolingVisionTransformer(
            img_size=(32, 24),
            base_dims=(8, 8, 8),
            depth=(1, 2, 1),
            heads=(2, 4, 8),
            num_classes=10,
            distilled=distilled,
            **sizes,
        )
    )
    model, gradients_in_place = (
        pit_keras.create_model(
            "pit_ti_distilled" if distilled else "pit_ti",
            input_shape=(32, 24, 3),
            classes=10,
            head_dim=8,
            depths=(1, 2, 1),
            **sizes,
        )
        for _ in range(2)
    )
    pit_keras.load_pytorch_weights(model, reference.state_dict())
    images, labels = random_images(32, 24), np.array([3, 8])

    logits = reference(channels_first(images))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(
            labels, model(images, training=True), from_logits=True
        )
        loss = keras.ops.mean(losses)
    gradients = tape.gradient(loss, model.trainable_variables)

    # A gradient has its weight's layout, so that it can be converted like one.
    pit_keras.load_pytorch_weights(
        gradients_in_place, {key: value.grad for key, value in reference.named_parameters()}
    )
    assert len(gradients) == len(gradients_in_place.trainable_variables)
    roundings = 2 * terms_along(model)  # there and back
    for gradient, expected in zip(gradients, gradients_in_place.trainable_variables, strict=True):
        assert_close(gradient, expected.numpy(), roundings=roundings)
