"""Checkpoints that PyTorch itself wrote, of timm's models with their own initial weights."""

import argparse
import collections
import functools
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.models.pit import PoolingVisionTransformer
from tolerances import assert_close, terms_along

import pit_keras
from pit_keras.weights import load_weights


def small():
    sizes = {"patch_size": 4, "stride": 2, "head_dim": 8, "depths": (1, 1, 1)}
    return pit_keras.create_model("pit_ti", input_shape=(32, 32, 3), classes=7, **sizes)


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    return PoolingVisionTransformer(
        img_size=32,
        patch_size=4,
        stride=2,
        base_dims=(8, 8, 8),
        depth=(1, 1, 1),
        heads=(2, 4, 8),
        num_classes=7,
    ).eval()


def assert_same_logits(model, reference):
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    with torch.inference_mode():
        expected = reference(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert_close(model(images), expected, roundings=terms_along(model))


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state, "epoch": 3}])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_saved_state_dict_loads(reference, tmp_path, wrap, zipped):
    path, model = tmp_path / "checkpoint.pth", small()
    torch.save(wrap(reference.state_dict()), path, _use_new_zipfile_serialization=zipped)
    load_weights(model, path)
    assert_same_logits(model, reference)


def test_a_live_state_dict_and_one_of_parameters_load_directly(reference):
    for state in (reference.state_dict(), dict(reference.named_parameters())):
        model = small()
        assert pit_keras.load_pytorch_weights(model, state) == len(state)
        assert_same_logits(model, reference)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_of_the_same_values(reference, tmp_path, dtype, suffix):
    state = {key: value.to(dtype) for key, value in reference.state_dict().items()}
    path, model = tmp_path / f"checkpoint{suffix}", small()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)

    load_weights(model, path)

    assert {variable.dtype for variable in model.weights} == {"float32"}
    expected = state["head.weight"].float().numpy().T
    np.testing.assert_array_equal(model.get_layer("head").kernel, expected)
    expected = state["pos_embed"].float().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(
        model.get_layer("position_embedding").position_embedding, expected
    )


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def assert_refused(path):
    model = small()
    before = model.get_weights()
    with pytest.raises(
        ValueError, match=r"checkpoint\.pth cannot be read safely as a PyTorch"
    ) as e:
        load_weights(model, path)
    assert str(e.value).count("\n") == 0
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_is_pickled_beside_the_tensors_is_never_run(reference, tmp_path):
    path, trace, model = tmp_path / "checkpoint.pth", tmp_path / "trace", small()
    torch.save({"model": reference.state_dict(), "extra": Trap(str(trace))}, path)
    load_weights(model, path)
    assert_same_logits(model, reference)
    assert not trace.exists()
    torch.load(path, weights_only=False)["extra"].close()
    assert trace.exists()  # the trap works


class AttributeDict(dict):
    """As Lightning's."""


@pytest.mark.parametrize("zipped", [True, False])
def test_the_arguments_of_a_training_program_do_no_harm(reference, tmp_path, zipped):
    path, model = tmp_path / "model_best.pth.tar", small()
    content = {"state_dict": reference.state_dict(), "args": argparse.Namespace(lr=1e-3)}
    if zipped:
        content |= {
            "best": np.float64(71.3),
            "hyper_parameters": AttributeDict(lr=1e-3, folder=tmp_path),
            "meters": collections.defaultdict(collections.deque, loss=collections.deque([1.0])),
            "loss": functools.partial(torch.nn.functional.cross_entropy, label_smoothing=0.1),
        }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    load_weights(model, path)
    assert_same_logits(model, reference)


@pytest.mark.parametrize("wrap", [lambda module: module, lambda module: {"ema": module}])
def test_the_weights_of_a_whole_module_load(reference, tmp_path, wrap):
    path, model = tmp_path / "whole.pt", small()
    torch.save(wrap(torch.nn.DataParallel(reference)), path)
    load_weights(model, path)
    assert_same_logits(model, reference)


def test_what_cannot_be_read_is_told_in_a_sentence(reference, tmp_path):
    path, state = tmp_path / "checkpoint.pth", reference.state_dict()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(ValueError, match=r"checkpoint\.pth is a TorchScript program, which is not"):
        load_weights(small(), path)
    torch.save({"model": state, "extra": os.system}, path)
    with pytest.raises(ValueError, match=r"it is whole, but (?:os|posix)\.system is refused"):
        load_weights(small(), path)
    for tensor in (state["head.weight"].to_sparse(), state["head.weight"].to("meta")):
        torch.save({**state, "head.weight": tensor}, path)
        with pytest.raises(ValueError, match=r"tensor head\.weight does not hold plain numbers"):
            load_weights(small(), path)
    torch.save({**state, "pos_embed": torch.zeros(1).expand(1, 16, 10**6, 10**6)}, path)
    with pytest.raises(ValueError, match=r"tensor pos_embed of shape .* is too large"):
        load_weights(small(), path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(reference, tmp_path, kept, zipped):
    path = tmp_path / "checkpoint.pth"
    torch.save(reference.state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept >= 1 else int(kept * len(content))])
    assert_refused(path)


def test_a_changed_byte_is_refused(reference, tmp_path):
    path = tmp_path / "changed.pth"
    torch.save(reference.state_dict(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(ValueError, match="is damaged: the checksum of"):
        pit_keras.load_pytorch_weights(small(), path)


def test_damage_in_the_middle_is_refused_or_told_as_a_misfit(tmp_path):
    """Whatever a damaged pickle makes PyTorch raise, the message stays a sentence."""
    path, model = tmp_path / "checkpoint.pth", small()
    torch.save({"a": torch.zeros(3), "b": torch.ones(5, 5)}, path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(content)
        for position in rng.integers(len(content), size=3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"checkpoint\.pth"):
            load_weights(model, path)
