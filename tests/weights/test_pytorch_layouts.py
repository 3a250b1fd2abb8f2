"""ResNet and RegNetY checkpoints into models, from state dicts written out here with NumPy."""

import re

import numpy as np
import pytest
import safetensors.numpy

import pit_keras

CLASSES = 7
DEPTHS = (1, 2, 1, 1)
WIDTHS = (8, 16, 24, 32)  # RegNetY's; in groups of 4
RESNET, REGNET = "resnet50", "regnety_160"


def small(name, **arguments):
    sizes = {"base_width": 4, "depths": DEPTHS}
    if name == REGNET:
        sizes = {"stage_widths": WIDTHS, "depths": DEPTHS, "group_width": 4}
    settings = {"input_shape": (32, 32, 3), "classes": CLASSES}
    return pit_keras.create_model(name, **{**settings, **sizes, **arguments})


class Checkpoint:
    """A random state dict in PyTorch's layout, and the Keras values that it stands for.

    Attributes:
        state: PyTorch's names to arrays.
        values: Keras' variable paths to arrays.
    """

    def __init__(self, name):
        self._rng = np.random.default_rng(0)
        self.state, self.values = {}, {}
        (self._resnet if name == RESNET else self._regnet)()

    def _tensor(self, key, *shape):
        self.state[key] = self._rng.normal(size=shape).astype("float32")
        return self.state[key]

    def _convolution(self, key, path, inputs, outputs, size, bias=False):
        weight = self._tensor(f"{key}.weight", outputs, inputs, size, size)
        self.values[f"{path}/kernel"] = np.einsum("oiyx->yxio", weight)
        if bias:
            self.values[f"{path}/bias"] = self._tensor(f"{key}.bias", outputs)

    def _norm(self, key, path, width):
        for theirs, ours in (
            ("weight", "gamma"),
            ("bias", "beta"),
            ("running_mean", "moving_mean"),
            ("running_var", "moving_variance"),
        ):
            self.values[f"{path}/{ours}"] = self._tensor(f"{key}.{theirs}", width)
        self.state[f"{key}.num_batches_tracked"] = np.array(5)

    def _head(self, key, inputs):
        self.values["head/kernel"] = self._tensor(f"{key}.weight", CLASSES, inputs).T
        self.values["head/bias"] = self._tensor(f"{key}.bias", CLASSES)

    def _resnet(self):
        self._convolution("conv1", "stem_conv", 3, 4, 7)
        self._norm("bn1", "stem_norm", 4)
        given = 4
        for stage, depth in enumerate(DEPTHS, 1):
            inner = 4 * 2 ** (stage - 1)
            for block in range(depth):
                key, path = f"layer{stage}.{block}", f"stage{stage}_block{block + 1}"
                channels = (given, inner, inner, 4 * inner)
                for part, size in ((1, 1), (2, 3), (3, 1)):
                    inputs, outputs = channels[part - 1 : part + 1]
                    self._convolution(
                        f"{key}.conv{part}", f"{path}_conv{part}", inputs, outputs, size
                    )
                    self._norm(f"{key}.bn{part}", f"{path}_norm{part}", outputs)
                if block == 0:
                    shortcut = f"{path}_shortcut_"
                    self._convolution(f"{key}.downsample.0", f"{shortcut}conv", given, 4 * inner, 1)
                    self._norm(f"{key}.downsample.1", f"{shortcut}norm", 4 * inner)
                given = 4 * inner
        self._head("fc", given)

    def _regnet(self):
        self._convolution("stem.conv", "stem_conv", 3, 32, 3)
        self._norm("stem.bn", "stem_norm", 32)
        given = 32
        for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True), 1):
            for block in range(1, depth + 1):
                key, path = f"s{stage}.b{block}", f"stage{stage}_block{block}"
                for part, inputs, size in ((1, given, 1), (2, 4, 3), (3, width, 1)):
                    names = f"{key}.conv{part}", f"{path}_conv{part}"
                    self._convolution(f"{names[0]}.conv", names[1], inputs, width, size)
                    self._norm(f"{names[0]}.bn", f"{path}_norm{part}", width)
                self._convolution(f"{key}.se.fc1", f"{path}_squeeze", width, given // 4, 1, True)
                self._convolution(f"{key}.se.fc2", f"{path}_excite", given // 4, width, 1, True)
                if block == 1:
                    shortcut = f"{path}_shortcut_"
                    self._convolution(f"{key}.downsample.conv", f"{shortcut}conv", given, width, 1)
                    self._norm(f"{key}.downsample.bn", f"{shortcut}norm", width)
                given = width
        self._head("head.fc", given)


def assert_holds(model, values):
    """Every variable of the model, and no other, has the value of its path."""
    assert {variable.path for variable in model.weights} == set(values)
    for variable in model.weights:
        np.testing.assert_array_equal(variable, values[variable.path], err_msg=variable.path)


def assert_refused(model, checkpoint, message):
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        pit_keras.load_pytorch_weights(model, checkpoint)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", [RESNET, REGNET])
def test_every_tensor_arrives_where_it_belongs(name):
    checkpoint, model = Checkpoint(name), small(name)
    assert pit_keras.load_pytorch_weights(model, checkpoint.state) == len(model.weights)
    assert_holds(model, checkpoint.values)


@pytest.mark.parametrize("name", [RESNET, REGNET])
def test_the_counters_of_batches_may_be_missing(name):
    checkpoint, model = Checkpoint(name), small(name)
    state = {key: value for key, value in checkpoint.state.items() if "num_batches" not in key}
    pit_keras.load_pytorch_weights(model, state)
    assert_holds(model, checkpoint.values)


@pytest.mark.parametrize("name", [RESNET, REGNET])
def test_a_model_without_its_top_ignores_the_classifier_and_nothing_else(name):
    checkpoint, model = Checkpoint(name), small(name, include_top=False)
    assert_refused(model, {**checkpoint.state, "extra.weight": np.zeros(3)}, "over: extra.weight")
    pit_keras.load_pytorch_weights(model, checkpoint.state)
    kept = {path: v for path, v in checkpoint.values.items() if not path.startswith("head")}
    assert_holds(model, kept)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (RESNET, "conv1.weight"),
        (RESNET, "layer2.0.downsample.1.running_var"),
        (RESNET, "layer2.1.bn3.running_mean"),
        (RESNET, "fc.bias"),
        (REGNET, "stem.bn.weight"),
        (REGNET, "s2.b2.se.fc2.bias"),
        (REGNET, "s4.b1.downsample.conv.weight"),
    ],
)
def test_a_missing_tensor_and_one_left_over_are_named(name, key):
    state, model = Checkpoint(name).state, small(name)
    assert_refused(model, {**state, f"{key}2": state[key]}, f"left over: {re.escape(key)}2")
    del state[key]
    assert_refused(model, state, rf"lacks 1 of .*: {re.escape(key)}\.$")


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        (RESNET, "fc.weight", (128, CLASSES)),
        (RESNET, "layer1.0.conv2.weight", (4, 4, 1, 1)),
        (RESNET, "bn1.running_var", ()),
        (REGNET, "s2.b1.conv2.conv.weight", (16, 16, 3, 3)),  # as without groups
        (REGNET, "s1.b1.se.fc1.weight", (8, 8)),  # as of a linear layer
    ],
)
def test_a_tensor_of_the_wrong_shape_is_named(name, key, shape):
    state = {**Checkpoint(name).state, key: np.zeros(shape, "float32")}
    assert_refused(
        small(name), state, rf"tensor {re.escape(key)} of shape {re.escape(str(shape))} does not"
    )


def test_a_dilated_resnet_takes_the_same_checkpoint(tmp_path):
    checkpoint = Checkpoint(RESNET)
    path = tmp_path / "resnet50.safetensors"
    safetensors.numpy.save_file(checkpoint.state, path)
    assert_holds(small(RESNET, output_stride=16, weights=path), checkpoint.values)


@pytest.mark.parametrize(
    ("name", "arguments"), [("resnet50_no_pooling", {"base_width": 4}), ("mobilenet_v3_small", {})]
)
def test_networks_that_pytorch_does_not_have_are_refused(name, arguments):
    model = pit_keras.create_model(name, input_shape=(32, 32, 3), **arguments)
    message = f"There are no PyTorch weights for {name}: only PiT, ViT, ResNet-50 and RegNetY have"
    assert_refused(model, Checkpoint(RESNET).state, message)


def test_the_checkpoint_of_another_network_is_refused():
    assert_refused(small(RESNET), Checkpoint(REGNET).state, "lacks .*: bn1.bias, ")
    assert_refused(small(REGNET), Checkpoint(RESNET).state, "lacks .*: head.fc.bias, ")
