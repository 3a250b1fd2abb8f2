"""Boxes against their definitions, one pair at a time."""

import numpy as np
import pytest
import tensorflow as tf
from single_boxes import overlap
from tolerances import assert_close

from pit_keras.models.boxes import centres_to_corners, giou, pairwise_giou


def random_corners(seed, *shape, smallest=0.0):
    """Corners in whole 256ths, so that float32 holds their sums and products exactly."""
    rng = np.random.default_rng(seed)
    starts, sizes = rng.uniform(size=(*shape, 2)), rng.uniform(smallest, 0.5, (*shape, 2))
    corners = np.concatenate([starts, starts + sizes], axis=-1)
    return np.float32(np.round(256 * corners) / 256)


def test_corners_and_centres():
    corners = np.float32([[[10, 20, 30, 60]], [[-1, 0, -1, 5]]])  # (2, 1, 4)
    centres = np.float32([[[20, 40, 20, 40]], [[-1, 2.5, 0, 5]]])
    np.testing.assert_array_equal(centres_to_corners(centres), corners)


def test_elementwise_by_definition():
    boxes, others = random_corners(0, 3, 2, 50), random_corners(1, 3, 1, 50)

    actual = giou(boxes, others)

    expected = [
        [[overlap(boxes[i, j, k], others[i, 0, k])[1] for k in range(50)] for j in range(2)]
        for i in range(3)
    ]
    assert actual.shape == (3, 2, 50)
    assert_close(actual, expected, roundings=3)  # two divisions and a difference


def test_pairs_by_definition():
    boxes, others = random_corners(0, 2, 3, 7), random_corners(1, 2, 1, 5)  # (2, 3, 7, 4), ...

    actual = pairwise_giou(boxes, others)

    expected = [
        [[[overlap(a, b)[1] for b in others[i, 0]] for a in boxes[i, j]] for j in range(3)]
        for i in range(2)
    ]
    assert actual.shape == (2, 3, 7, 5)
    assert_close(actual, expected, roundings=3)


@pytest.mark.parametrize("shapes", [((0, 4), (3, 4)), ((2, 3, 4), (2, 0, 4))])
def test_sets_may_be_empty(shapes):
    boxes, others = (np.zeros(shape, "float32") for shape in shapes)
    assert pairwise_giou(boxes, others).shape == (*shapes[0][:-1], shapes[1][-2])


@pytest.mark.parametrize("size", [0.5, 1e-3, 1e-6, 1e-12])
def test_a_box_covers_itself_however_small(size):
    """An addition to the denominators, as libraries have it, would be seen here."""
    box = np.float32([[0, 0, size, size]])
    assert_close(giou(box, box), [1], roundings=4)


# Corners of two boxes and their GIoU.
DEGENERATE = {
    "a point in a box": ((0.5, 0.5, 0.5, 0.5), (0, 0, 1, 1), 0),
    "a point beside a box": ((2, 0, 2, 0), (0, 0, 1, 1), -0.5),
    "a line through a box": ((0.5, 0, 0.5, 1), (0, 0, 1, 1), 0),
    "two points": ((0, 0, 0, 0), (1, 1, 1, 1), -1),
    "two points on a line": ((0, 0, 0, 0), (1, 0, 1, 0), 0),
    "the same point": ((1, 1, 1, 1), (1, 1, 1, 1), 0),
    "the same line": ((0, 0, 1, 0), (0, 0, 1, 0), 0),
    "touching boxes": ((0, 0, 1, 1), (1, 0, 2, 1), 0),
    "areas that are 0 in float32": ((0, 0, 1e-30, 1e-30), (0, 0, 1e-30, 1e-30), 0),
}


@pytest.mark.parametrize("jit", [False, True])
def test_degenerate_boxes_have_exact_values_and_finite_gradients(jit):
    firsts, seconds, expected = zip(*DEGENERATE.values(), strict=True)

    @tf.function(jit_compile=jit, autograph=False)
    def values_and_gradients(boxes, others):
        with tf.GradientTape() as tape:
            tape.watch([boxes, others])
            values = giou(boxes, others)
        return values, tf.stack(tape.gradient(values, [boxes, others]))

    values, gradients = values_and_gradients(*tf.constant([firsts, seconds], tf.float32))

    np.testing.assert_array_equal(values, expected, err_msg=str(list(DEGENERATE)))
    assert np.isfinite(gradients).all()


def test_gradients_are_those_of_finite_differences():
    boxes, others = random_corners(0, 20, smallest=0.1), random_corners(1, 20, smallest=0.1)
    boxes += np.float32(1 / 512)  # no side is where another is, as there the gradient jumps
    with tf.GradientTape() as tape:
        variable = tf.Variable(boxes)
        value = giou(variable, others)
    gradient = tape.gradient(value, variable).numpy()

    step = 1e-6
    for side in range(4):
        moved = [boxes.astype("float64"), boxes.astype("float64")]
        moved[0][:, side] -= step
        moved[1][:, side] += step
        before, after = (
            np.array([overlap(a, b)[1] for a, b in zip(m, others, strict=True)]) for m in moved
        )
        # Sums and products are exact; three quotients and their products remain.
        assert_close(gradient[:, side], (after - before) / (2 * step), roundings=100)


def test_half_precision_is_computed_in_float32():
    boxes = tf.constant([[300.0, 300.0, 302.0, 302.0]], "bfloat16")
    others = tf.constant([[300.0, 300.0, 302.0, 304.0]], "bfloat16")
    value = giou(boxes, others)
    assert value.dtype == tf.float32
    np.testing.assert_array_equal(value, [0.5])
