"""Checkpoints of other sizes, classes, channels and kinds, into small models.

What timm makes of position embeddings and kernels comes from tests/golden/make_adaptation.py.
"""

import pathlib
import re
import warnings

import numpy as np
import pytest
import safetensors.numpy
from fixed_embeddings import INPUT_CHANNELS, MAPS, SEQUENCES, fixed_embedding, fixed_kernel
from fixed_maps import roundings_of_resampling
from tolerances import assert_close

import pit_keras
from pit_keras.weights import load_weights
from pit_keras.weights.adaptation import (
    POSITIONS,
    TOKENS,
    adapted_input_kernel,
    resampled_map,
    resampled_sequence,
)
from pit_keras.weights.keras_files import read_keras
from pit_keras.weights.loading import carry_over
from pit_keras.weights.pytorch import read_checkpoint
from pit_keras.weights.recognition import Checkpoint

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/adaptation.npz")
NAMES = ("pit_ti", "pit_ti_distilled", "vit_ti", "vit_ti_distilled")
EACH = pytest.mark.parametrize(
    "name",
    [
        *("pit_ti", "vit_ti_distilled"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("pit_ti_distilled", "vit_ti")),
    ],
)
PATCHES = "patch_embedding/kernel"


def small(name, **arguments):
    sizes = {"head_dim": 8, "patch_size": 4}
    sizes |= {"stride": 2, "depths": (1, 1, 1)} if "pit" in name else {"stride": 4, "depth": 1}
    settings = {"input_shape": (32, 32, 3), "classes": 7}
    return pit_keras.create_model(name, **{**settings, **sizes, **arguments})


def values_of(model):
    return {variable.path: np.asarray(variable) for variable in model.weights}


def randomised(model):
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A random `.keras` file of each small model: its path, and what is read from it."""
    folder = tmp_path_factory.mktemp("saved")
    files = {}
    for name in NAMES:
        path = folder / f"{name}.keras"
        model = randomised(small(name))
        model.save(path)
        files[name] = path, read_keras(path)
    return files


@pytest.fixture(scope="module")
def plain():
    """Models that no test gives other weights."""
    return small("pit_ti"), small("vit_ti_distilled")


def assert_same(values, expected, but=()):
    assert set(values) == set(expected)
    for path in set(expected) - set(but):
        np.testing.assert_array_equal(values[path], expected[path], err_msg=path)


def assert_refused(model, checkpoint, message):
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        carry_over(checkpoint, model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def assert_resampled(actual, expected, embedding, grid):
    roundings, scale = roundings_of_resampling(grid), np.abs(embedding).max()
    assert_close(actual, expected, roundings=roundings, scale=scale)


@pytest.mark.parametrize(("old", "new"), MAPS)
def test_maps_are_resampled_as_timm_does(old, new):
    embedding = fixed_embedding(*old)
    assert_resampled(resampled_map(embedding, new), GOLDEN[f"map {old} {new}"], embedding, old)


@pytest.mark.parametrize(("tokens", "old", "new"), SEQUENCES)
def test_sequences_are_resampled_as_timm_does(tokens, old, new):
    embedding = fixed_embedding(tokens + old[0] * old[1])
    actual = resampled_sequence(embedding, old, new, tokens)
    assert_resampled(actual, GOLDEN[f"sequence {tokens} {old} {new}"], embedding, old)


@pytest.mark.parametrize("channels", INPUT_CHANNELS)
def test_kernels_are_adapted_as_timm_does(channels):
    actual = adapted_input_kernel(fixed_kernel(), channels)
    assert_close(actual, GOLDEN[f"kernel {channels}"], roundings=3)  # a sum of three, or a product


@EACH
@pytest.mark.parametrize(
    "arguments", [{"input_shape": (48, 24, 3)}, {"stride": 3}, {"input_shape": (64, 16, 3)}]
)
def test_another_size_or_stride_resamples_the_position_embedding(saved, name, arguments):
    checkpoint, expected = saved[name][1], saved[name][1].values
    model = small(name, **arguments)

    report = carry_over(checkpoint, model)

    values = values_of(model)
    assert_same(values, expected, but=[POSITIONS])
    old, new = report.grids
    tokens = expected[TOKENS].shape[1]
    assert new == model.get_layer("stage1").output[1].shape[1:3]
    if name.startswith("pit"):
        positions = resampled_map(expected[POSITIONS], new)
    else:
        positions = resampled_sequence(expected[POSITIONS], old, new, tokens)
    np.testing.assert_array_equal(values[POSITIONS], positions)
    assert f"resampled from {old[0]} x {old[1]} to {new[0]} x {new[1]}" in str(report)


def test_a_rectangular_keras_file_is_known_to_be_one(tmp_path):
    rectangle = randomised(small("vit_ti", input_shape=(64, 16, 3)))  # a grid of 16 x 4, not 8 x 8
    rectangle.save(tmp_path / "rectangle.keras")

    same = small("vit_ti", input_shape=(64, 16, 3), weights=tmp_path / "rectangle.keras")
    square = small("vit_ti")
    report = load_weights(square, tmp_path / "rectangle.keras")

    assert_same(values_of(same), values_of(rectangle))
    assert report.grids == ((16, 4), (8, 8))


def test_a_pytorch_checkpoint_of_a_rectangle_fits_it_or_is_refused(tmp_path):
    path = tmp_path / "rectangle.safetensors"
    state = pytorch_state(randomised(small("vit_ti", input_shape=(32, 24, 3))))  # 8 x 6
    safetensors.numpy.save_file(state, path)

    assert load_weights(small("vit_ti", input_shape=(32, 24, 3)), path).grids is None
    square = small("vit_ti")
    checkpoint = read_checkpoint(square, path)
    assert_refused(square, checkpoint, "48 positions of pos_embed are no square grid")


def pytorch_state(vit):
    """The state dict of a plain ViT of one block, in DeiT's names."""
    values = values_of(vit)
    names = {
        "stage1_block1/attention_norm": "blocks.0.norm1",
        "stage1_block1/attention/qkv": "blocks.0.attn.qkv",
        "stage1_block1/attention/projection": "blocks.0.attn.proj",
        "stage1_block1/mlp_norm": "blocks.0.norm2",
        "stage1_block1/mlp/expand": "blocks.0.mlp.fc1",
        "stage1_block1/mlp/reduce": "blocks.0.mlp.fc2",
        "norm": "norm",
        "head": "head",
    }
    state = {
        "pos_embed": values[POSITIONS],
        "cls_token": values[TOKENS],
        "patch_embed.proj.weight": np.einsum("yxio->oiyx", values[PATCHES]),
        "patch_embed.proj.bias": values["patch_embedding/bias"],
    }
    for ours, theirs in names.items():
        kernel = values.get(f"{ours}/kernel")
        weight = values[f"{ours}/gamma"] if kernel is None else kernel.T
        state[f"{theirs}.weight"] = weight
        state[f"{theirs}.bias"] = values.get(f"{ours}/bias", values.get(f"{ours}/beta"))
    return {key: np.ascontiguousarray(value) for key, value in state.items()}


@EACH
def test_other_classes_leave_out_the_heads_and_say_so(saved, name):
    path, expected = saved[name][0], saved[name][1].values
    model = small(name, classes=5)
    before = values_of(model)

    with pytest.warns(UserWarning, match="heads not carried over, .* 7 classes .* model has 5"):
        report = load_weights(model, path)

    heads = [variable for variable in before if variable.startswith("head")]
    values = values_of(model)
    assert len(heads) == (4 if "distilled" in name else 2)
    assert report.tensors == len(expected) - len(heads)
    assert_same(values, {**expected, **{head: before[head] for head in heads}})


@EACH
def test_a_model_without_its_top_takes_the_rest_without_a_word(saved, name):
    path, expected = saved[name][0], saved[name][1].values
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = small(name, include_top=False, weights=path)
    assert_same(values_of(model), {k: v for k, v in expected.items() if not k.startswith("head")})


@EACH
def test_a_checkpoint_without_heads_is_refused_where_they_are_needed(saved, name):
    values = {k: v for k, v in saved[name][1].values.items() if not k.startswith("head")}
    headless = Checkpoint("headless", values)
    for classes in (7, 5):
        model = small(name, classes=classes)
        assert_refused(model, headless, "has no classifier .*include_top=False")


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_adapt_the_patch_embedding_alone(saved, channels):
    checkpoint, expected = saved["pit_ti"][1], saved["pit_ti"][1].values
    model = small("pit_ti", input_shape=(32, 32, channels))

    report = carry_over(checkpoint, model)

    values = values_of(model)
    assert_same(values, expected, but=[PATCHES])
    adapted = adapted_input_kernel(expected[PATCHES], channels)
    np.testing.assert_array_equal(values[PATCHES], adapted)
    assert "input channels adapted from 3 to " in str(report)


def test_checkpoints_that_are_not_for_rgb_are_not_adapted():
    grey = small("pit_ti", input_shape=(32, 32, 1))
    checkpoint = Checkpoint("grey", values_of(grey))
    assert carry_over(checkpoint, grey).channels is None
    assert_refused(small("pit_ti"), checkpoint, "for images of 1 channels and pit_ti for 3")


@pytest.mark.parametrize("name", ["pit_ti", "vit_ti"])
@pytest.mark.parametrize("distilled_into_plain", [True, False])
def test_distilled_and_plain_are_exchanged_only_by_choice(saved, name, distilled_into_plain):
    source, target = f"{name}_distilled", name
    if not distilled_into_plain:
        source, target = target, source
    assert_refused(small(target), saved[source][1], "weights_across_distillation=True")


@pytest.mark.parametrize("name", ["pit_ti", "vit_ti"])
def test_a_distilled_checkpoint_becomes_plain_without_what_is_distillations(saved, name):
    path, expected = saved[f"{name}_distilled"][0], saved[f"{name}_distilled"][1].values
    model = small(name, weights=path, weights_across_distillation=True)
    values = values_of(model)
    np.testing.assert_array_equal(values[TOKENS][:, 0], expected[TOKENS][:, 0])
    if name == "vit_ti":
        np.testing.assert_array_equal(values[POSITIONS][:, 0], expected[POSITIONS][:, 0])
        np.testing.assert_array_equal(values[POSITIONS][:, 1:], expected[POSITIONS][:, 2:])
    kept = {k: v for k, v in expected.items() if not k.startswith("head_dist")}
    assert_same(values, kept, but=[TOKENS, *([POSITIONS] if name == "vit_ti" else [])])


@pytest.mark.parametrize("name", ["pit_ti", "vit_ti"])
def test_a_plain_checkpoint_becomes_distilled_by_copying_and_answers_the_same_way(saved, name):
    path, expected = saved[name][0], saved[name][1].values
    model = small(f"{name}_distilled", weights=path, weights_across_distillation=True)
    values = values_of(model)
    for token in (0, 1):
        np.testing.assert_array_equal(values[TOKENS][:, token], expected[TOKENS][:, 0])
    np.testing.assert_array_equal(values["head_dist/kernel"], expected["head/kernel"])
    np.testing.assert_array_equal(values["head_dist/bias"], expected["head/bias"])
    if name == "vit_ti":
        np.testing.assert_array_equal(values[POSITIONS][:, 1], expected[POSITIONS][:, 0])
        np.testing.assert_array_equal(values[POSITIONS][:, 2:], expected[POSITIONS][:, 1:])


def test_all_at_once(saved):
    path = saved["vit_ti_distilled"][0]
    model = small("vit_ti", input_shape=(48, 24, 4), classes=5)
    with pytest.warns(UserWarning, match="heads not carried over"):
        report = load_weights(model, path, across_distillation=True)
    assert report.grids == ((8, 8), (12, 6))
    assert report.channels == (3, 4)
    assert re.search("dropped; heads not carried over", str(report))
    assert np.isfinite(model(np.zeros((1, 48, 24, 4), "float32"))).all()


def test_the_choice_without_weights_is_refused():
    with pytest.raises(ValueError, match="weights_across_distillation=True needs weights"):
        small("pit_ti", weights_across_distillation=True)


@EACH
def test_a_model_of_any_size_takes_a_checkpoint_of_one(name, saved):
    checkpoint, expected = saved[name][1], saved[name][1].values
    same = small(name, input_shape=(None, None, 3), base_size=(32, 32))
    other = small(name, input_shape=(None, None, 3), base_size=(40, 48))
    fixed = small(name, input_shape=(40, 48, 3))

    for model in (same, other, fixed):
        carry_over(checkpoint, model)

    assert_same(values_of(same), expected)
    assert_same(values_of(other), values_of(fixed))


@pytest.mark.parametrize("name", ["resnet50", "regnety_160"])
def test_a_convolutional_checkpoint_fits_other_classes_and_channels(name):
    sizes = {
        "resnet50": {"base_width": 4, "depths": (1, 1, 1, 1)},
        "regnety_160": {"stage_widths": (8, 16, 16, 24), "depths": (1, 1, 1, 1), "group_width": 8},
    }[name]
    model = pit_keras.create_model(name, classes=7, input_shape=(32, 32, 3), **sizes)
    checkpoint = Checkpoint("file", values_of(randomised(model)))
    other = pit_keras.create_model(name, classes=5, input_shape=(48, 40, 1), **sizes)

    report = carry_over(checkpoint, other)

    assert report.new_heads
    assert "for 7 classes and the model has 5: train them" in str(report)

    values, expected = values_of(other), values_of(model)
    assert_same(values, expected, but=("head/kernel", "head/bias", "stem_conv/kernel"))
    summed = expected["stem_conv/kernel"].sum(2, keepdims=True)
    assert_close(values["stem_conv/kernel"], summed, roundings=3)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("pit_ti", "head/kernel"),
        ("pit_ti", "head/bias"),
        ("pit_ti_distilled", "head_dist/kernel"),
        ("vit_ti_distilled", "head_dist/bias"),
    ],
)
def test_half_a_classifier_is_refused(saved, name, path):
    model = small(name)
    values = {key: value for key, value in saved[name][1].values.items() if key != path}

    with pytest.raises(ValueError, match=f"incomplete classifier: .*{path}"):
        carry_over(Checkpoint("file", values), model)


def test_one_head_of_two_is_refused():
    model = small("pit_ti_distilled")
    values = {key: v for key, v in values_of(model).items() if not key.startswith("head_dist")}

    with pytest.raises(ValueError, match="incomplete classifier: head_dist/kernel"):
        carry_over(Checkpoint("file", values), model)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("head/bias", (3,)),
        ("head/bias", ()),
        (TOKENS, (1, 3, 16)),
        (TOKENS, (1, 7)),
        (POSITIONS, (0, 3, 3, 16)),
        (POSITIONS, (1, 0, 16)),
    ],
)
@pytest.mark.parametrize("across_distillation", [False, True])
def test_odd_shapes_are_named(plain, path, shape, across_distillation):
    for model in plain:
        values = values_of(model) | {path: np.zeros(shape, "float32")}

        with pytest.raises(ValueError, match=re.escape(path)):
            carry_over(Checkpoint("file", values), model, across_distillation)


@pytest.mark.parametrize("across_distillation", [False, True])
@pytest.mark.parametrize("pair", [("pit_ti", "pit_ti_distilled"), ("vit_ti_distilled", "vit_ti")])
def test_a_checkpoint_without_positions_is_refused(pair, across_distillation):
    values = values_of(small(pair[0]))
    del values[POSITIONS]

    with pytest.raises(ValueError, match=r"distilled|lacks 1 of"):
        carry_over(Checkpoint("file", values), small(pair[1]), across_distillation)


def test_a_checkpoint_of_another_network_is_not_taken_for_a_headless_one():
    values = {"conv/kernel": np.zeros((3, 3, 3, 16)), "logits/kernel": np.zeros((16, 7))}
    other = Checkpoint("other", values)
    assert_refused(small("pit_ti"), other, r"does not fit pit_ti: it lacks \d+ of")
