import math

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from shapes_only import shapes_only
from tolerances import assert_close, random_walk

import pit_keras
from pit_keras.models import variant_of
from pit_keras.models.convolution_layers import residual_stages
from pit_keras.models.cost import count_macs, count_parameters

NAMES = ("resnet50", "resnet50_no_pooling")


def small(name="resnet50", **arguments):
    settings = {"input_shape": (48, 40, 3), "classes": 5, "base_width": 4, "depths": (1, 2, 1, 1)}
    return pit_keras.create_model(name, **{**settings, **arguments})


def images(count=2, size=(48, 40)):
    return np.random.default_rng(0).normal(size=(count, *size, 3)).astype("float32")


def stage_maps(model):
    return [model.get_layer(f"stage{stage}").output for stage in (1, 2, 3, 4)]


def kernels(model):
    return {v.path: v for v in model.weights if v.name == "kernel"}


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    # torchvision's count of each; the second has no other implementation.
    [("resnet50", 25_557_032, 4.089e9), ("resnet50_no_pooling", 22_102_632, 4.109e9)],
)
def test_parameters_and_cost(name, parameters, macs):
    model = shapes_only(name)
    statistics = 2 * sum(v.shape[0] for v in model.weights if v.name == "gamma")
    assert count_parameters(model) == parameters
    assert model.count_params() == parameters + statistics
    assert count_macs(model) == pytest.approx(macs, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "arguments", "maps"),
    [
        ("resnet50", {}, [(12, 10, 16), (6, 5, 32), (3, 3, 64), (2, 2, 128)]),
        ("resnet50", {"output_stride": 16}, [(12, 10, 16), (6, 5, 32), (3, 3, 64), (3, 3, 128)]),
        ("resnet50", {"stem_stride": 2}, [(24, 20, 16), (12, 10, 32), (6, 5, 64), (3, 3, 128)]),
        ("resnet50", {"stem_stride": 1}, [(48, 40, 16), (24, 20, 32), (12, 10, 64), (6, 5, 128)]),
        (
            "resnet50",
            {"stem_stride": 1, "output_stride": 4},
            [(48, 40, 16), (24, 20, 32), (12, 10, 64), (12, 10, 128)],
        ),
        ("resnet50_no_pooling", {}, [(3, 2, 16)] * 4),
        ("resnet50_no_pooling", {"patch_size": 8}, [(6, 5, 16)] * 4),
        (
            "resnet50_no_pooling",
            {"width_multipliers": (1, 2, 4, 8)},
            [(3, 2, 16), (3, 2, 32), (3, 2, 64), (3, 2, 128)],
        ),
    ],
)
def test_the_map_of_every_stage(name, arguments, maps):
    model = small(name, **arguments)
    assert [tuple(stage.shape[1:]) for stage in stage_maps(model)] == maps
    outputs = keras.Model(model.input, stage_maps(model))(images())
    assert [tuple(output.shape[1:]) for output in outputs] == maps


def test_grids_at_224():
    assert variant_of("resnet50").grids((224, 224)) == ((56, 56), (28, 28), (14, 14), (7, 7))
    assert variant_of("resnet50_no_pooling").grids((224, 224)) == ((14, 14),) * 4
    assert variant_of("resnet50").widths() == (256, 512, 1024, 2048)
    assert variant_of("resnet50_no_pooling").widths() == (1088,) * 4


def test_without_pooling_no_shortcut_is_projected():
    assert not [path for path in kernels(small("resnet50_no_pooling")) if "shortcut" in path]
    assert len([path for path in kernels(small("resnet50")) if "shortcut" in path]) == 4


def test_the_dilated_stage_has_the_same_weights_and_begins_undilated():
    model = small(output_stride=16, depths=(1, 1, 1, 3))
    dilations = [
        model.get_layer(f"stage{stage}_block{block}_conv2").dilation_rate[0]
        for stage, block in ((1, 1), (3, 1), (4, 1), (4, 2), (4, 3))
    ]
    assert dilations == [1, 1, 1, 2, 2]
    plain = small(depths=(1, 1, 1, 3))
    assert [(v.path, v.shape) for v in plain.weights] == [(v.path, v.shape) for v in model.weights]


@pytest.mark.parametrize("stem_stride", [2, 1])
def test_a_finer_stem_has_the_same_weights(stem_stride):
    plain, fine = small(), small(stem_stride=stem_stride)
    assert [(v.path, v.shape) for v in plain.weights] == [(v.path, v.shape) for v in fine.weights]


@pytest.mark.parametrize(
    ("name", "arguments"), [*((name, {}) for name in NAMES), ("resnet50", {"stem_stride": 2})]
)
def test_every_weight_gets_a_gradient(name, arguments):
    model = small(name, **arguments)
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(model(images(), training=True) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.abs(gradient).max() > 0, variable.path


def test_statistics_move_a_tenth_of_the_way():
    model = small()
    norm = model.get_layer("stem_norm")
    features = keras.Model(model.input, model.get_layer("stem_conv").output)(images())
    norm.moving_mean.assign(keras.ops.ones(norm.moving_mean.shape))
    model(images(), training=True)
    expected = 0.9 + 0.1 * np.asarray(features).mean((0, 1, 2))
    # A mean over two images of 24 x 20 places, a product and a sum.
    assert_close(norm.moving_mean, expected, roundings=2 * 24 * 20 + 2)


def test_a_saved_model_loads_in_a_fresh_process(tmp_path):
    model = small(drop_path_rate=0.1, drop_rate=0.2)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images())
    script = (
        "import keras, numpy, pit_keras\n"
        "model = keras.models.load_model('model.keras')\n"
        "numpy.save('logits.npy', model(numpy.load('images.npy')))\n"
    )
    forked.run_code(script, tmp_path).check_returncode()
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), model(images()))


def test_any_size_channels_classes_activation_and_without_top():
    assert small(input_shape=(33, 65, 1), classes=1).output_shape == (None, 1)
    assert small(input_shape=(64, 37, 3))(images(size=(64, 37))).shape == (2, 5)
    assert small(include_top=False)(images()).shape == (2, 128)
    model, logits = small(classifier_activation="softmax"), small()
    logits.set_weights(model.get_weights())
    np.testing.assert_array_equal(model(images()), keras.ops.softmax(logits(images())))


@pytest.mark.parametrize(
    ("name", "policy"),
    [("resnet50", "mixed_bfloat16"), ("resnet50_no_pooling", "mixed_float16")],
)
def test_mixed_precision_computes_in_half_and_answers_in_float32(name, policy):
    plain = small(name)
    keras.config.set_dtype_policy(policy)
    try:
        model = small(name)
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(plain.get_weights())
    assert model.get_layer("stage2").output.dtype == policy.removeprefix("mixed_")
    assert model.get_layer("stage2_block1_conv2").variable_dtype == "float32"
    logits = model(images())
    assert logits.dtype == "float32"
    expected = plain(images())
    assert np.abs(logits - expected).max() > 0
    # Three convolutions with their norms and a sum in each of five blocks, the stem, the shortcuts.
    half = policy.removeprefix("mixed_")
    assert_close(logits, expected, roundings=random_walk(5 * 7 + 2 + 4 * 2), dtype=half)


def test_dropout_is_only_for_training():
    model, plain = small(drop_rate=0.3, drop_path_rate=0.3), small()
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(model(images()), plain(images()))
    assert np.abs(model(images(), training=True) - plain(images())).max() > 1e-3


def test_drop_path_grows_as_in_the_other_models():
    model = small(drop_path_rate=0.2)
    rates = [layer.rate for layer in model.layers if layer.name.endswith("drop_path")]
    assert rates == pytest.approx([0.2 * i / 5 for i in range(5)])


def test_drop_path_leaves_out_whole_branches_and_keeps_the_mean():
    images, stages = keras.Input((2, 2, 3)), [(1, 3, 1, 1)]  # one block that is its input twice
    model = keras.Model(images, residual_stages(images, stages, [0.5], lambda x, *_: x))
    outputs = np.asarray(model(np.ones((400, 2, 2, 3), "float32"), training=True))
    assert set(np.unique(outputs)) == {1, 3}
    assert (outputs.min((1, 2, 3)) == outputs.max((1, 2, 3))).all()
    assert 0.4 < (outputs[:, 0, 0, 0] == 1).mean() < 0.6


def test_initialisation_is_torchvisions():
    keras.utils.set_random_seed(0)
    model = pit_keras.create_model("resnet50", input_shape=(32, 32, 3), depths=(1, 1, 2, 1))
    for variable in model.weights:
        values = np.asarray(variable)
        if variable.name in ("gamma", "moving_variance"):
            assert (values == 1).all(), variable.path
        elif variable.name in ("beta", "moving_mean"):
            assert (values == 0).all(), variable.path
    for name, fan_out in (
        ("stem_conv", 49 * 64),
        ("stage3_block2_conv2", 9 * 256),
        ("stage4_block1_shortcut_conv", 2048),
    ):
        kernel = np.asarray(model.get_layer(name).kernel)
        assert kernel.std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.03), name
        assert np.abs(kernel).max() > 3 * kernel.std()  # not truncated
    for values in model.get_layer("head").get_weights():
        bound = 1 / math.sqrt(2048)
        assert 0.9 * bound < np.abs(values).max() <= bound


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: small(attention_drop_rate=0.1),
            "attention_drop_rate of resnet50 must be 0; got 0.1",
        ),
        (
            lambda: small(drop_rate=0.1, include_top=False),
            "drop_rate of resnet50 must be 0; got 0.1",
        ),
        (
            lambda: small(output_stride=8),
            "must be 32, or 16 to dilate the last stage, for a stem_stride of 4; got 8",
        ),
        (lambda: small(stem_stride=2, output_stride=32), "must be 16, or 8 .* of 2; got 32"),
        (lambda: small(stem_stride=3), "stem_stride of a ResNet must be 4, 2 or 1; got 3"),
        (
            lambda: small(input_shape=(16, 64, 3)),
            "16 x 64 pixels is too small to be halved 5 times; use 17 x 17 or more",
        ),
        (lambda: small("resnet50_no_pooling", input_shape=(15, 64, 3)), "smaller than one patch"),
        (lambda: small("resnet50_no_pooling", output_stride=16), "no argument 'output_stride'"),
        (lambda: small(patch_size=4), "no argument 'patch_size'.*Arguments are: .*output_stride"),
        (lambda: small(depths=(1, 1)), "depths of resnet50 must be like"),
        (
            lambda: pit_keras.create_model("resnet50_distilled"),
            "Unknown model 'resnet50_distilled'",
        ),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
