"""timm's own loading of a checkpoint at another size and with other channels, against ours."""

import numpy as np
import pytest
import timm
import torch
from fixed_embeddings import INPUT_CHANNELS, fixed_embedding, fixed_kernel
from fixed_maps import roundings_of_resampling
from timm.layers import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from timm.models import adapt_input_conv
from tolerances import assert_close, random_walk, terms_along

import pit_keras
from pit_keras.weights import load_weights
from pit_keras.weights.adaptation import adapted_input_kernel, resampled_map, resampled_sequence

GRIDS = [(27, 27), (14, 14), (8, 31), (5, 3), (1, 2)]


@pytest.mark.parametrize("old", GRIDS)
@pytest.mark.parametrize("new", GRIDS)
def test_position_embeddings_are_resampled_as_timm_does(old, new):
    roundings = roundings_of_resampling(old)
    embedding = fixed_embedding(*old)
    expected = resample_abs_pos_embed_nhwc(torch.from_numpy(embedding), new).numpy()
    scale = np.abs(embedding).max()
    assert_close(resampled_map(embedding, new), expected, roundings=roundings, scale=scale)

    sequence = fixed_embedding(2 + old[0] * old[1])
    expected = resample_abs_pos_embed(torch.from_numpy(sequence), new, old, num_prefix_tokens=2)
    actual = resampled_sequence(sequence, old, new, tokens=2)
    scale = np.abs(sequence).max()
    assert_close(actual, expected.numpy(), roundings=roundings, scale=scale)


@pytest.mark.parametrize("channels", INPUT_CHANNELS)
def test_input_kernels_are_adapted_as_timm_does(channels):
    kernel = fixed_kernel()
    expected = adapt_input_conv(channels, torch.from_numpy(kernel).permute(3, 2, 0, 1))
    actual = adapted_input_kernel(kernel, channels)
    assert_close(actual, expected.permute(2, 3, 1, 0), roundings=3)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_a_deit_checkpoint_at_another_size_answers_as_in_timm(name, tmp_path):
    torch.manual_seed(0)
    trained = timm.create_model(name).eval()
    torch.save(trained.state_dict(), tmp_path / "deit.pth")
    reference = timm.create_model(
        name,
        img_size=(96, 160),
        in_chans=4,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "deit.pth")},
    ).eval()
    ours = "vit_ti_distilled" if "distilled" in name else "vit_ti"
    model = pit_keras.create_model(ours, input_shape=(96, 160, 4))

    load_weights(model, tmp_path / "deit.pth")

    images = np.random.default_rng(0).normal(size=(2, 96, 160, 4)).astype("float32")
    with torch.inference_mode():
        expected = reference(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert_close(model(images), expected, roundings=random_walk(terms_along(model)))
