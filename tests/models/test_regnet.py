import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from shapes_only import shapes_only
from tolerances import assert_close, random_walk

import pit_keras
from pit_keras.models import variant_of
from pit_keras.models.convolution_layers import SymmetricConv2D
from pit_keras.models.cost import count_macs, count_parameters
from pit_keras.optimizers import decays

SMALL = {"stage_widths": (8, 16, 24, 32), "depths": (1, 2, 1, 1), "group_width": 8}


def small(**arguments):
    return pit_keras.create_model(
        "regnety_160", **{"input_shape": (48, 40, 3), "classes": 5, **SMALL, **arguments}
    )


def with_all_branches(model):
    """Scales drawn anew: those that begin at zero would hide the branches behind them."""
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        if variable.name == "gamma":
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    return model


def images(size=(48, 40)):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")


def test_parameters_cost_and_grids_of_the_teacher():
    model = shapes_only("regnety_160")
    assert count_parameters(model) == 83_590_140
    assert count_macs(model) == pytest.approx(15.91e9, rel=1e-3)
    maps = [model.get_layer(f"stage{stage}").output.shape[1:] for stage in (1, 2, 3, 4)]
    assert maps == [(56, 56, 224), (28, 28, 448), (14, 14, 1232), (7, 7, 3024)]
    assert variant_of("regnety_160").grids((224, 224)) == tuple(shape[:2] for shape in maps)
    assert model.get_layer("stage1_block1_squeeze").filters == 8  # of the 32 it is given
    assert model.get_layer("stage4_block1_squeeze").filters == 308


@pytest.mark.parametrize("jit", [False, True])
def test_every_weight_gets_a_gradient(jit):
    keras.utils.set_random_seed(0)
    model = with_all_branches(small(depths=(1, 1, 1, 1), squeeze_ratio=1.0))
    if jit:  # XLA compiles every block alike
        model = keras.Model(model.input, model.get_layer("stage1").output)

    def compute():
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(model(images(), training=True) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    gradients = tf.function(compute, jit_compile=True, autograph=False)() if jit else compute()
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.abs(gradient).max() > 0, variable.path


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("size", [(7, 6), (8, 9)])
def test_the_convolution_is_keras_own_padded_on_both_sides(strides, size):
    ours = SymmetricConv2D(12, 3, strides=strides, padding="same", groups=3)
    keras_own = keras.layers.Conv2D(12, 3, strides=strides, groups=3)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, *size, 6)).astype("float32"))
    ours.build(x.shape)
    keras_own.build(x.shape)
    ours.set_weights(keras_own.get_weights())
    results = []
    for layer, padding in ((ours, 0), (keras_own, 1)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(tf.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)]))
            loss = keras.ops.sum(output**2)
        results.append([output, *tape.gradient(loss, [x, layer.kernel.value])])
    # Nine places and two channels for each output; backwards a kernel's gradient sums over all
    # places and images, and both sum what came forwards.
    places = 2 * 9 * size[0] * size[1]
    for a, b in zip(*results, strict=True):
        assert_close(a, b, roundings=places)
    assert ours.compute_output_shape(x.shape) == results[0][0].shape


def test_only_kernels_decay():
    model = small()
    excluded = {id(variable) for variable in model.trainable_variables if not decays(variable)}
    for variable in model.trainable_variables:
        assert (id(variable) in excluded) == (variable.name != "kernel"), variable.path
        assert variable.name in ("kernel", "bias", "gamma", "beta")


def test_a_saved_model_loads_and_computes_the_same(tmp_path):
    model = with_all_branches(small(drop_path_rate=0.1))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images()), model(images()))


def test_any_size_and_without_top():
    assert small(input_shape=(70, 33, 3))(images((70, 33))).shape == (2, 5)
    assert small(include_top=False)(images()).shape == (2, 32)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_in_half_and_answers_in_float32(policy):
    plain = with_all_branches(small())
    keras.config.set_dtype_policy(policy)
    try:
        model = small()
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(plain.get_weights())
    assert model.get_layer("stage2").output.dtype == policy.removeprefix("mixed_")
    logits = model(images())
    assert logits.dtype == "float32"
    expected = plain(images())
    assert np.abs(logits - expected).max() > 0
    # As in test_resnet.py, with a squeeze and an excitation of two products each.
    half = policy.removeprefix("mixed_")
    assert_close(logits, expected, roundings=random_walk(5 * 10 + 2 + 4 * 2), dtype=half)


def test_initialisation_is_timms():
    keras.utils.set_random_seed(0)
    sizes = {"stage_widths": (224, 448, 1232, 112), "depths": (1, 1, 2, 1)}
    model = pit_keras.create_model("regnety_160", input_shape=(32, 32, 3), **sizes)
    for variable in model.trainable_variables:
        values = np.asarray(variable)
        if variable.name == "gamma":
            silent = variable.path.endswith("norm3/gamma")
            assert (values == (0 if silent else 1)).all(), variable.path
        elif variable.name != "kernel":
            assert (values == 0).all(), variable.path
    for name, fan_out in (
        ("stem_conv", 9 * 32),
        ("stage3_block2_conv2", 9 * 112),  # of one group
        ("stage3_block2_conv1", 1232),
        ("stage2_block1_squeeze", 56),
    ):
        kernel = np.asarray(model.get_layer(name).kernel)
        assert kernel.std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05), name
    assert np.asarray(model.get_layer("head").kernel).std() == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention_drop_rate": 0.1}, "attention_drop_rate of regnety_160 must be 0"),
        ({"input_shape": (64, 16, 3)}, "64 x 16 pixels is too small"),
        ({"group_width": 7}, "group_width=7 does not divide 8 channels"),
        ({"output_stride": 16}, "no argument 'output_stride'"),
    ],
)
def test_bad_input_is_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
