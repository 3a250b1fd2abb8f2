"""Models take (B, H, W, C) whatever `image_data_format` a user's keras.json has."""

import keras
import numpy as np
import pytest

import pit_keras

NETWORKS = {
    "pit_ti_distilled": {"patch_size": 4, "stride": 2, "head_dim": 8, "depths": (1, 1, 1)},
    "vit_ti": {"patch_size": 4, "stride": 4, "head_dim": 8, "depth": 1},
    "resnet50": {"base_width": 4, "depths": (1, 1, 1, 1)},
    "regnety_160": {"stage_widths": (8, 16, 16, 24), "depths": (1, 1, 1, 1), "group_width": 8},
    "mobilenet_v3_small": {},
    "detr_pit_s": {
        **{"queries": 6, "encoder_layers": 1, "decoder_layers": 1, "hidden_width": 16},
        **{"hidden_heads": 2, "feed_forward": 24, "output_stride": 4},
        **{"patch_size": 4, "stride": 2, "head_dim": 8, "depths": (1, 1, 1), "heads": (1, 2, 4)},
    },
}


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_is_the_same_under_channels_first(name, tmp_path, request):
    settings = {"input_shape": (32, 36, 3), "classes": 5, **NETWORKS[name]}
    usual = pit_keras.create_model(name, **settings)
    images = np.random.default_rng(0).normal(size=(2, 32, 36, 3)).astype("float32")
    inputs = [images, np.zeros((2, 32, 36), bool)] if len(usual.inputs) == 2 else images
    usual.save(tmp_path / "model.keras")
    expected = outputs_of(usual, inputs)

    request.getfixturevalue("channels_first")
    again = pit_keras.create_model(name, **settings)
    assert keras.config.image_data_format() == "channels_first"  # the user's, as it was
    again.set_weights(usual.get_weights())
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for model in (again, loaded):
        for output, value in zip(outputs_of(model, inputs), expected, strict=True):
            np.testing.assert_array_equal(output, value)
    if name[:4] != "detr":
        pooled = pit_keras.pre_logits(again)(images)
        np.testing.assert_array_equal(pooled, pit_keras.pre_logits(usual)(images))


def outputs_of(model, inputs):
    return keras.tree.flatten(keras.tree.map_structure(np.asarray, model(inputs, training=False)))
