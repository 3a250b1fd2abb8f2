import numpy as np
import pytest
from tolerances import assert_close

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.export.tflite import export_tflite, load_tflite_model
from pit_keras.runs.trained_model import TrainedModel
from pit_keras.serving.served_networks import KerasNetwork, TFLiteNetwork

SMALL = {"patch_size": 4, "stride": 4, "head_dim": 8}


def test_batches_of_any_size_give_the_logits_of_single_images(trained, photographs, roundings):
    network = KerasNetwork(trained)
    prepared = [network.prepare(image) for image in photographs]
    expected = trained.logits(photographs)
    assert expected.std(axis=0).mean() > 1e-2
    for count in (1, 3, 8):
        logits = network.logits(prepared[:count])
        assert_close(logits, expected[:count], roundings=roundings, scale=1)


def test_attention_is_that_of_the_class_token_in_each_stage(trained, photographs, roundings):
    network = KerasNetwork(trained)
    blocks = {1: "stage1_block1", 2: "stage2_block2", 3: "stage3_block1"}
    assert {stage: each.block for stage, each in network.attention.items()} == blocks
    prepared = network.prepare(photographs[0])
    for each in network.attention.values():
        (maps,) = each.function([prepared])
        weights = np.asarray(pit_keras.attention_maps(trained.model, each.block)(prepared[None]))
        height, width = each.grid
        assert maps.shape == (each.heads, height, width)
        # Two tokens come first: the class token, whose row it is, and the distillation token.
        assert weights.shape[-1] == 2 + height * width
        assert_close(maps.reshape(each.heads, -1), weights[0, :, 0, 2:], roundings=roundings)


@pytest.mark.parametrize(
    ("name", "overrides", "stages"),
    [("vit_ti", {**SMALL, "depth": 2}, {1: (8, 8)}), ("resnet50", {"base_width": 8}, {})],
)
def test_other_families_tell_what_attention_they_have(name, overrides, stages):
    model = pit_keras.create_model(name, input_shape=(32, 32, 3), classes=3, **overrides)
    network = KerasNetwork(TrainedModel(model, ("a", "b", "c"), DataConfig(image_size=(32, 32))))
    assert {stage: each.grid for stage, each in network.attention.items()} == stages


def test_a_tflite_file_gives_the_same_without_attention(trained, photographs, tmp_path, roundings):
    export_tflite(trained, tmp_path / "model.tflite")
    network = TFLiteNetwork(load_tflite_model(tmp_path / "model.tflite"))
    prepared = [network.prepare(image) for image in photographs[:3]]
    expected = trained.logits(photographs[:3])
    assert_close(network.logits(prepared), expected, roundings=roundings, scale=1)
    assert network.class_names == trained.class_names
    assert network.attention == {}
