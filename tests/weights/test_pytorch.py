"""PyTorch checkpoints into models, from state dicts written out here with NumPy alone.

The models are small and rectangular, (32, 24) pixels in patches of 4, so that nothing fits by
chance when height and width are exchanged.
"""

import re

import numpy as np
import pytest
import safetensors.numpy

import pit_keras
from pit_keras.weights import load_weights

CLASSES = 7
GRIDS = {"pit": (15, 11), "vit": (8, 6)}
BLOCK = (  # PyTorch's name, Keras', inputs and outputs in units of the width
    ("attn.qkv", "attention/qkv", 1, 3),
    ("attn.proj", "attention/projection", 1, 1),
    ("mlp.fc1", "mlp/expand", 1, 4),
    ("mlp.fc2", "mlp/reduce", 4, 1),
)
BLOCK_NORMS = (("norm1", "attention_norm"), ("norm2", "mlp_norm"))


def small(name, **arguments):
    sizes = {"head_dim": 8, "patch_size": 4}
    sizes |= {"stride": 2, "depths": (1, 2, 1)} if "pit" in name else {"stride": 4, "depth": 2}
    settings = {"input_shape": (32, 24, 3), "classes": CLASSES}
    return pit_keras.create_model(name, **{**settings, **sizes, **arguments})


class Checkpoint:
    """A random state dict in one of the three layouts, and the Keras values that it stands for.

    Attributes:
        state: PyTorch's names to arrays.
        values: Keras' variable paths to arrays.
    """

    def __init__(self, name, pools="transformers.{next}.pool", head_dim=8):
        family, distilled = name[:3], name.endswith("_distilled")
        self._rng = np.random.default_rng(0)
        self.state, self.values = {}, {}
        widths = [head_dim * heads for heads in ((2, 4, 8) if family == "pit" else (3,))]

        patches = "patch_embed.conv" if family == "pit" else "patch_embed.proj"
        self._add_convolution(patches, "patch_embedding", widths[0])
        self._add_embeddings(family, 2 if distilled else 1, widths[0])
        for stage, (width, depth) in enumerate(zip(widths, (1, 2, 1), strict=False)):
            if stage:
                prefix = pools.format(this=stage - 1, next=stage)
                self._add_pooling(prefix, f"pooling{stage}", widths[stage - 1])
            for block in range(depth if family == "pit" else 2):
                prefix = f"transformers.{stage}.blocks" if family == "pit" else "blocks"
                self._add_block(f"{prefix}.{block}", f"stage{stage + 1}_block{block + 1}", width)
        self._add_norm("norm", "norm", widths[-1])
        for head in ("head", "head_dist")[: 2 if distilled else 1]:
            self._add_linear(head, head, widths[-1], CLASSES)

    def _tensor(self, key, *shape):
        self.state[key] = self._rng.normal(size=shape).astype("float32")
        return self.state[key]

    def _add_linear(self, key, path, inputs, outputs):
        weight = self._tensor(f"{key}.weight", outputs, inputs)
        self.values[f"{path}/kernel"] = np.einsum("oi->io", weight)
        self.values[f"{path}/bias"] = self._tensor(f"{key}.bias", outputs)

    def _add_norm(self, key, path, width):
        self.values[f"{path}/gamma"] = self._tensor(f"{key}.weight", width)
        self.values[f"{path}/beta"] = self._tensor(f"{key}.bias", width)

    def _add_convolution(self, key, path, width):
        weight = self._tensor(f"{key}.weight", width, 3, 4, 4)
        self.values[f"{path}/kernel"] = np.einsum("oiyx->yxio", weight)
        self.values[f"{path}/bias"] = self._tensor(f"{key}.bias", width)

    def _add_embeddings(self, family, tokens, width):
        height, columns = GRIDS[family]
        if family == "pit":
            positions = self._tensor("pos_embed", 1, width, height, columns)
            positions = np.einsum("bcyx->byxc", positions)
            class_tokens = self._tensor("cls_token", 1, tokens, width)
        else:
            positions = self._tensor("pos_embed", 1, tokens + height * columns, width)
            class_tokens = self._tensor("cls_token", 1, 1, width)
            if tokens == 2:
                both = [class_tokens[0, 0], self._tensor("dist_token", 1, 1, width)[0, 0]]
                class_tokens = np.array([both])
        self.values["position_embedding/position_embedding"] = positions
        self.values["class_tokens/class_tokens"] = class_tokens

    def _add_pooling(self, key, path, width):
        weight = self._tensor(f"{key}.conv.weight", 2 * width, 1, 3, 3)
        kernel = np.empty((3, 3, width, 2), "float32")
        for channel, m in np.ndindex(width, 2):
            kernel[:, :, channel, m] = weight[2 * channel + m, 0]
        self.values[f"{path}/depthwise_conv/kernel"] = kernel
        self.values[f"{path}/depthwise_conv/bias"] = self._tensor(f"{key}.conv.bias", 2 * width)
        self._add_linear(f"{key}.fc", f"{path}/class_dense", width, 2 * width)

    def _add_block(self, key, path, width):
        for theirs, ours, inputs, outputs in BLOCK:
            self._add_linear(f"{key}.{theirs}", f"{path}/{ours}", inputs * width, outputs * width)
        for theirs, ours in BLOCK_NORMS:
            self._add_norm(f"{key}.{theirs}", f"{path}/{ours}", width)


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def negated(state):
    return {name: -value for name, value in state.items()}


def assert_holds(model, values):
    """Every variable of the model, and no other, has the value of its path."""
    assert {variable.path for variable in model.weights} == set(values)
    for variable in model.weights:
        np.testing.assert_array_equal(variable, values[variable.path], err_msg=variable.path)


@pytest.fixture(scope="module")
def plain():
    """A model that no test gives other weights."""
    return small("pit_ti")


def assert_refused(model, checkpoint, message):
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        pit_keras.load_pytorch_weights(model, checkpoint)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", ["pit_ti", "pit_ti_distilled", "vit_ti", "vit_ti_distilled"])
def test_every_tensor_arrives_where_it_belongs(name):
    checkpoint, model = Checkpoint(name), small(name)
    assert pit_keras.load_pytorch_weights(model, checkpoint.state) == len(checkpoint.state)
    assert_holds(model, checkpoint.values)


@pytest.mark.parametrize("pools", ["pools.{this}", "transformers.{this}.pool"])
def test_the_authors_and_older_timms_names_of_the_poolings_are_understood(pools):
    theirs, model = Checkpoint("pit_ti", pools=pools), small("pit_ti")
    assert f"{pools.format(this=0)}.conv.weight" in theirs.state
    pit_keras.load_pytorch_weights(model, theirs.state)
    assert_holds(model, theirs.values)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "epoch": 300},
        lambda state: {"state_dict": state, "arch": "pit_ti"},
        lambda state: {"state_dict": {"model": state}, "model": {"state_dict": state}},
        lambda state: {key: value.astype("float64") for key, value in state.items()},
        lambda state: dict(reversed(state.items())),
        lambda state: {"epoch": 1, "model_state_dict": state, "optimizer_state_dict": {"a": state}},
        lambda state: {"state": {"model": prefixed("module.", state)}},
        lambda state: prefixed("module._orig_mod.", state),
        lambda state: {"n_averaged": np.array(3), **prefixed("module.", state)},
        lambda state: {name.replace(".attn.", "._orig_mod.attn."): v for name, v in state.items()},
        lambda state: {
            name if name.startswith("head") else f"backbone.{name}": value
            for name, value in state.items()
        },
    ],
    ids=[
        *("model", "state_dict", "both", "float64", "another order"),
        *("tutorial", "nested", "prefixes", "AveragedModel", "inner wrapper", "head of its own"),
    ],
)
def test_what_training_scripts_put_around_it_does_not_matter(wrap):
    checkpoint, model = Checkpoint("pit_ti"), small("pit_ti")
    pit_keras.load_pytorch_weights(model, wrap(checkpoint.state))
    assert_holds(model, checkpoint.values)
    assert {variable.dtype for variable in model.weights} == {"float32"}


@pytest.mark.parametrize(
    ("raw", "average"),
    [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("student", "teacher")],
)
def test_of_raw_and_averaged_weights_the_ones_taken_are_named(raw, average):
    checkpoint, model = Checkpoint("pit_ti"), small("pit_ti")
    both = {raw: prefixed("module.", checkpoint.state), average: negated(checkpoint.state)}

    with pytest.warns(UserWarning, match=f"averaged weights '{average}' are taken, not the raw"):
        pit_keras.load_pytorch_weights(model, both)
    assert_holds(model, negated(checkpoint.values))

    with pytest.warns(UserWarning, match="averaged=True takes"):
        pit_keras.load_pytorch_weights(model, both, averaged=False)
    assert_holds(model, checkpoint.values)


def test_one_state_dict_may_hold_other_networks_than_the_one_taken(plain):
    state, model = Checkpoint("pit_ti").state, small("pit_ti")
    program = {
        **prefixed("model.", state),
        "teacher.s1.b1.conv1.conv.weight": np.zeros((3, 3, 1, 1)),
        "criterion.weight": np.ones(3),
    }
    with pytest.warns(UserWarning, match="left out") as told:
        pit_keras.load_pytorch_weights(model, {"state_dict": program})
    assert_holds(model, Checkpoint("pit_ti").values)
    message = str(told[0].message)
    assert "'state_dict: teacher.' has other tensors and is left out" in message
    assert "left out beside 'state_dict: model.': criterion.weight." in message

    two = {"a": state, "b": negated(state)}
    assert_refused(plain, two, "holds several networks, 'a', 'b'; save the state dict of one")
    with pytest.raises(ValueError, match=r"holds no raw weights, only averaged ones \(ema\)"):
        pit_keras.load_pytorch_weights(plain, {"ema": state}, averaged=False)


def test_a_tensor_too_large_for_any_network_is_refused_before_memory_is_taken(plain):
    state = Checkpoint("pit_ti").state
    huge = np.broadcast_to(np.float32(0), (10**6, 10**6))
    assert_refused(plain, {**state, "head.weight": huge}, r"head\.weight of shape .* is too large")


@pytest.mark.parametrize("name", ["pit_ti", "pit_ti_distilled", "vit_ti_distilled"])
def test_a_model_without_its_top_ignores_the_heads_and_nothing_else(name):
    checkpoint, model = Checkpoint(name), small(name, include_top=False)
    assert_refused(model, {**checkpoint.state, "header.weight": np.zeros(3)}, "over: header.weight")
    missing = {key: value for key, value in checkpoint.state.items() if key != "norm.bias"}
    assert_refused(model, missing, r"lacks 1 .*: norm.bias\.")

    pit_keras.load_pytorch_weights(model, checkpoint.state)

    kept = {path: v for path, v in checkpoint.values.items() if not path.startswith("head")}
    assert_holds(model, kept)


@pytest.mark.parametrize(
    "key",
    [
        "cls_token",
        "pos_embed",
        "patch_embed.conv.bias",
        "transformers.1.blocks.1.attn.qkv.weight",
        "transformers.2.pool.conv.weight",
        "head.bias",
    ],
)
def test_a_missing_tensor_is_named(plain, key):
    state = Checkpoint("pit_ti").state
    del state[key]
    tensors = len(plain.weights)
    assert_refused(plain, state, rf"lacks 1 of the model's {tensors} tensors: {re.escape(key)}\.$")


@pytest.mark.parametrize(
    "key", ["transformers.1.blocks.2.norm1.weight", "head_dist.bias", "pools.2.fc.bias", "extra"]
)
def test_a_tensor_left_over_is_named(plain, key):
    state = Checkpoint("pit_ti", pools="pools.{this}").state
    assert_refused(
        plain, {**state, key: np.zeros(3)}, rf"1 of its tensors would be left over: {key}\.$"
    )


def test_of_many_missing_tensors_the_first_few_are_named(plain):
    state = Checkpoint("pit_ti").state
    state = {key: value for key, value in state.items() if ".mlp." not in key}
    assert_refused(
        plain, state, r"lacks 16 of .*: transformers\.0\.blocks\.0\.mlp\.fc1\.bias, .*\.\.\."
    )


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("head.weight", (CLASSES + 1, 64)),  # the last tensor: none before it may be kept
        ("head.weight", (64, CLASSES)),  # transposed
        ("head.weight", (CLASSES, 64, 1, 1)),  # as of a 1 x 1 convolution
        ("head.bias", ()),
        ("norm.weight", (1, 64)),
        ("patch_embed.conv.weight", (16, 3, 16, 16)),
        ("patch_embed.conv.weight", (4, 4, 3, 16)),  # Keras' layout
        ("patch_embed.conv.weight", (16, 48)),
        ("transformers.1.pool.conv.weight", (32, 1, 5, 5)),
        ("transformers.1.pool.conv.weight", (32, 16, 3, 3)),  # not depth-wise
        ("transformers.1.pool.conv.weight", (16, 1, 3, 3)),  # without the multiplier
        ("transformers.1.pool.conv.weight", (31, 1, 3, 3)),
        ("transformers.1.pool.conv.weight", (32, 9)),
        ("transformers.2.pool.fc.weight", (64, 64)),
        ("pos_embed", (1, 16, 27, 27)),  # of another image size
        ("pos_embed", (1, 16, 11, 15)),  # height and width exchanged
        ("pos_embed", (1, 165, 16)),  # a ViT's
        ("cls_token", (1, 2, 16)),
        ("cls_token", (16,)),
    ],
)
def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(plain, key, shape):
    state = {**Checkpoint("pit_ti").state, key: np.zeros(shape, "float32")}
    assert_refused(
        plain,
        state,
        rf"tensor {re.escape(key)} of shape {re.escape(str(shape))} does not fit \S+ of",
    )


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("pit_ti", "pit_ti_distilled", "left over: head_dist.bias, head_dist.weight"),
        ("pit_ti_distilled", "pit_ti", "lacks 2 .*: head_dist.bias, head_dist.weight"),
        ("vit_ti", "vit_ti_distilled", "over: dist_token, head_dist.bias, head_dist.weight"),
        ("vit_ti_distilled", "vit_ti", "lacks 3 .*: dist_token, head_dist.bias, head_dist.weight"),
        ("pit_ti", "vit_ti", "lacks 58 .*: patch_embed.conv.bias, .*transformers.0.blocks.0"),
        ("vit_ti", "pit_ti", "lacks 26 .*: blocks.0.attn.proj.bias"),
    ],
)
def test_the_checkpoint_of_another_model_is_refused(name, other, message):
    assert_refused(small(name), Checkpoint(other).state, message)


def test_the_checkpoint_of_another_width_or_depth_is_refused(plain):
    wider = Checkpoint("pit_ti", head_dim=12).state
    assert_refused(plain, wider, r"patch_embed.conv.weight of shape \(24, 3, 4, 4\)")
    state = Checkpoint("pit_ti").state
    assert_refused(small("pit_ti", depths=(1, 1, 1)), state, "over: transformers.1.blocks.1.attn")
    assert_refused(small("pit_ti", depths=(1, 2, 2)), state, "lacks 12 .* transformers.2.blocks.1.")


@pytest.mark.parametrize("name", ["pit_ti_distilled", "vit_ti_distilled"])
def test_without_heads_to_tell_them_apart_distilled_and_plain_are_still_refused(name):
    plain = name.removesuffix("_distilled")
    for model, checkpoint in ((plain, name), (name, plain)):
        headless = small(model, include_top=False)
        assert_refused(headless, Checkpoint(checkpoint).state, "cls_token|dist_token|pos_embed")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": {}},
        {"head.weight": [[0.0]]},
        {"model": "pit_ti", "epoch": 3},
        {0: np.zeros(3)},
        {"model": {"optimizer": {"lr": 0.1}}},
    ],
    ids=["empty", "empty model", "lists", "words", "numbers for names", "an optimizer"],
)
def test_what_is_no_state_dict_is_refused(plain, content):
    assert_refused(plain, content, "is not a state dict, a mapping from names to tensors")


def test_a_safetensors_file_becomes_a_model(tmp_path):
    path = tmp_path / "weights.safetensors"
    checkpoint = Checkpoint("pit_ti_distilled")
    safetensors.numpy.save_file(checkpoint.state, path)
    assert_holds(small("pit_ti_distilled", weights=path), checkpoint.values)
    assert_holds(small("pit_ti_distilled", weights=str(path)), checkpoint.values)
    with pytest.raises(ValueError, match=r"weights\.safetensors is distilled and pit_ti is not"):
        small("pit_ti", weights=path)


@pytest.mark.parametrize("name", ["model.bin", "model_best.pth.tar", "last.ckpt"])
def test_the_content_counts_and_not_the_ending(tmp_path, name):
    checkpoint = Checkpoint("pit_ti")
    safetensors.numpy.save_file(prefixed("module.", checkpoint.state), tmp_path / name)
    assert_holds(small("pit_ti", weights=tmp_path / name), checkpoint.values)


@pytest.mark.parametrize("kept", [0, 4, 100, -4])
def test_a_truncated_safetensors_file_is_refused(plain, tmp_path, kept):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(Checkpoint("pit_ti").state, path)
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(plain, path, r"weights\.safetensors is not a readable safetensors file")


def test_a_missing_file_and_an_unknown_format_are_told_apart(plain, tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path / "none.pth"):
        with pytest.raises(FileNotFoundError, match=r"There is no checkpoint .*none"):
            pit_keras.load_pytorch_weights(plain, path)
        with pytest.raises(FileNotFoundError, match=r"There is no weights file .*none"):
            load_weights(plain, path)
    for name in ("weights.npz", "weights", "imagenet"):
        with pytest.raises(ValueError, match=f"Unknown weights .*{name}'; give 'imagenet', or"):
            load_weights(plain, tmp_path / name)


def test_numbers_too_large_for_float32_are_refused():
    state = dict(Checkpoint("pit_ti").state)
    state["norm.bias"] = state["norm.bias"].astype("float64") * 1e300

    with pytest.raises(ValueError, match=r"norm\.bias holds values that are not finite"):
        pit_keras.load_pytorch_weights(small("pit_ti"), state)
