"""A token pooling from inside, held against its definition written out tap by tap."""

import numpy as np
import pytest
from keras import ops
from tolerances import assert_close, terms_along

import pit_keras
from pit_keras.explain.inside_pooling import busiest_channels, pooling_after, pooling_step

SMALL = {"patch_size": 4, "stride": 4, "head_dim": 8, "depths": (1, 1, 1), "classes": 10}


@pytest.fixture(scope="module")
def model():
    """Grids 7 x 9 -> 4 x 5 -> 2 x 3: odd sides first, then an even one."""
    return pit_keras.create_model("pit_ti_distilled", input_shape=(28, 36, 3), **SMALL)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(2, 28, 36, 3)).astype("float32")


def pooled_by_hand(feature_map, kernel, bias):
    """Stride 2, one zero all around."""
    batch, height, width, channels = feature_map.shape
    grid = (height + 1) // 2, (width + 1) // 2
    padded = np.pad(feature_map.astype("float64"), ((0, 0), (1, 1), (1, 1), (0, 0)))
    after = np.zeros((batch, *grid, channels * kernel.shape[-1]))
    for row in range(grid[0]):
        for column in range(grid[1]):
            window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            for channel in range(channels):
                for number in range(kernel.shape[-1]):
                    taps = window[..., channel] * kernel[:, :, channel, number]
                    after[:, row, column, channel * kernel.shape[-1] + number] = taps.sum((1, 2))
    return after + bias


def largest_pooled(step):
    """As large as a sum of nine taps can become on its way."""
    return 9 * np.abs(step.map_before).max() * np.abs(step.kernel).max()


@pytest.mark.parametrize(
    ("stage", "before", "after"), [(1, (7, 9, 16), (4, 5, 32)), (2, (4, 5, 32), (2, 3, 64))]
)
def test_a_step_is_the_models_own(model, images, stage, before, after):
    step = pooling_step(model, stage, images)
    assert step.map_before.shape == (2, *before)
    assert step.map_after.shape == (2, *after)
    assert step.tokens_before.shape == (2, 2, before[-1])
    assert step.tokens_after.shape == (2, 2, after[-1])
    assert step.kernel.shape == (3, 3, before[-1], 2)

    features = ops.convert_to_numpy(pit_keras.stage_features(model, stage)(images))
    assert_close(step.map_before, features, roundings=terms_along(model))
    pooling = pooling_after(model, stage)
    bias = ops.convert_to_numpy(pooling.depthwise_conv.bias)
    expected = pooled_by_hand(step.map_before, step.kernel, bias)
    assert_close(step.map_after, expected, roundings=10, scale=largest_pooled(step))
    weights, bias = map(ops.convert_to_numpy, pooling.class_dense.weights)
    expected = step.tokens_before.astype("float64") @ weights + bias
    largest = len(weights) * np.abs(step.tokens_before).max() * np.abs(weights).max()
    assert_close(step.tokens_after, expected, roundings=len(weights) + 1, scale=largest)


def test_the_busiest_channels_vary_most(model, images):
    step = pooling_step(model, 1, images)
    step.map_before[0] = 0
    step.map_before[0, 2, 3, [5, 11, 4]] = 1, -3, 2
    assert busiest_channels(step, 3).tolist() == [11, 4, 5]


@pytest.mark.parametrize("stage", [0, 3, -1, "1", None])
def test_a_pooling_that_is_not_there_is_refused(model, stage):
    with pytest.raises(ValueError, match="has 2 token poolings, from stage 1 on; got"):
        pooling_after(model, stage)


def test_a_vit_has_none(images):
    vit = pit_keras.create_model("vit_ti", input_shape=(32, 32, 3), patch_size=16, classes=2)
    with pytest.raises(ValueError, match="vit_ti has 0 token poolings"):
        pooling_step(vit, 1, images)
