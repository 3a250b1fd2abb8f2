import pathlib

import numpy as np
import pytest
import tensorflow as tf
from fixed_maps import GRIDS, fixed_map, roundings_of_resampling
from tolerances import assert_close

from pit_keras.models.resampling import interpolation_matrix, resampled

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/resampling.npz")


@pytest.mark.parametrize(("grid", "new_grid"), GRIDS)
def test_it_is_pytorchs_antialiased_bicubic(grid, new_grid):
    result = resampled(fixed_map(grid), new_grid)

    expected = GOLDEN[f"{grid} {new_grid}"]
    scale = np.abs(fixed_map(grid)).max()
    assert_close(result, expected, roundings=roundings_of_resampling(grid), scale=scale)


def test_the_grid_may_be_known_only_when_the_graph_runs():
    @tf.function(input_signature=[tf.TensorSpec((2,), "int32")])
    def resampled_to(grid):
        return resampled(fixed_map((27, 27)), (grid[0], grid[1]))

    for new_grid in [(49, 74), (11, 17)]:
        expected = resampled(fixed_map((27, 27)), new_grid)
        # The same weights up to their ten roundings, then two sums of 27 terms.
        assert_close(resampled_to(tf.constant(new_grid)), expected, roundings=2 * (10 + 27))
    np.testing.assert_array_equal(resampled_to(tf.constant((27, 27))), fixed_map((27, 27)))


def test_a_map_of_that_grid_already_is_returned_as_it_is():
    embedding = fixed_map((7, 5))

    assert resampled(embedding, (7, 5)) is embedding


def test_interpolation_to_the_same_size_is_exactly_the_identity():
    np.testing.assert_array_equal(interpolation_matrix(27, 27), np.eye(27))


@pytest.mark.parametrize(("size", "new_size"), [(5, 5), (5, 12), (12, 5), (1, 3), (3, 1)])
def test_interpolation_weights_sum_to_one(size, new_size):
    weights = np.asarray(interpolation_matrix(size, new_size))

    assert weights.shape == (new_size, size)
    assert_close(weights.sum(axis=1), np.ones(new_size), roundings=size + 1)
    assert_close(weights, weights[::-1, ::-1], roundings=size + 1)  # the sum in another order


def test_half_precision_is_computed_in_full():
    embedding = fixed_map((7, 7)).astype("float16")

    result = resampled(embedding, (9, 12))

    assert result.dtype == "float16"
    full = np.asarray(resampled(embedding.astype("float32"), (9, 12)))
    np.testing.assert_array_equal(result, full.astype("float16"))
