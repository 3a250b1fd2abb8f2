"""Token pooling with stride 1 and dilation 2: the last two stages share one grid."""

import numpy as np
import pytest
import tensorflow as tf
from shapes_only import shapes_only
from tolerances import assert_close

import pit_keras
from pit_keras.models import stage_features
from pit_keras.models.pooling import TokenPooling


def small(**arguments):
    settings = {"input_shape": (28, 20, 3), "classes": 10, "patch_size": 4, "stride": 2}
    return pit_keras.create_model(
        "pit_ti", **{**settings, "head_dim": 8, "depths": (1, 1, 1), **arguments}
    )


@pytest.mark.parametrize(
    ("name", "output_stride", "grids"),
    [
        ("pit_s", 16, [(27, 27), (14, 14), (14, 14)]),
        ("pit_s", 32, [(27, 27), (14, 14), (7, 7)]),
        ("pit_b", 14, [(31, 31), (16, 16), (16, 16)]),
    ],
)
def test_the_last_two_stages_share_a_grid(name, output_stride, grids):
    model = shapes_only(name, output_stride=output_stride, depths=(1, 1, 1))

    assert [m.shape[1:3] for m in stage_features(model).outputs] == grids


def test_the_weights_are_the_same(tmp_path):
    plain, dilated = small(), small(output_stride=4)
    plain.save_weights(tmp_path / "plain.weights.h5")

    dilated.load_weights(tmp_path / "plain.weights.h5")

    for a, b in zip(plain.get_weights(), dilated.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    images = np.random.default_rng(0).normal(size=(1, 28, 20, 3)).astype("float32")
    for stage in (1, 2):
        np.testing.assert_array_equal(
            stage_features(plain, stage)(images), stage_features(dilated, stage)(images)
        )


def slow_dilated_pooling(feature_map, kernel, bias):
    """One value after the other: taps two apart, zeros outside the map."""
    _, height, width, channels = feature_map.shape
    multiplier = kernel.shape[-1]
    pooled = np.zeros((height, width, channels, multiplier))
    for row, column in np.ndindex(height, width):
        for i, j in np.ndindex(3, 3):
            y, x = row + 2 * (i - 1), column + 2 * (j - 1)
            if 0 <= y < height and 0 <= x < width:
                pooled[row, column] += feature_map[0, y, x][:, None] * kernel[i, j]
    return pooled.reshape(height, width, -1) + bias


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("grid", [(4, 6), (5, 3), (1, 2)])
def test_dilated_pooling_is_its_definition(grid, compiled):
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(1, 2, 3)).astype("float32")
    feature_map = rng.normal(size=(1, *grid, 3)).astype("float32")
    pooling = TokenPooling(multiplier=2, stride=1, dilation=2)
    pooling.build([tokens.shape, feature_map.shape])

    pool = tf.function(pooling, jit_compile=compiled, autograph=False)
    joined = np.asarray(pool([tokens, feature_map]))

    kernel, bias = pooling.depthwise_conv.get_weights()
    expected = slow_dilated_pooling(feature_map, kernel, bias)
    assert_close(joined[0, 2:], expected.reshape(-1, 6), roundings=9 + 1)  # nine taps and a bias
    assert_close(joined[:, :2], pooling.class_dense(tokens), roundings=3 + 1)  # channels, a bias


@pytest.mark.parametrize("value", [8, 64, 0, "16", True])
def test_another_output_stride_names_the_two_there_are(value):
    with pytest.raises(ValueError, match="output_stride must be 32, or 16 to dilate"):
        pit_keras.create_model("pit_s", output_stride=value)


def test_vit_has_no_output_stride_to_choose():
    with pytest.raises(ValueError, match="no argument 'output_stride'"):
        pit_keras.create_model("vit_s", output_stride=16)
