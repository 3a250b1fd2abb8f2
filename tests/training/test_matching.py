"""Matching against its definition, against all assignments, and against the reference's pairs."""

import itertools
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from single_boxes import corners, l1, overlap
from tolerances import assert_close

from pit_keras.training.matching import assign, least_cost, match, matching_costs

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "detection_loss.npz"
CASES = (
    "usual",
    "an_image_without_boxes",
    "without_boxes",
    "many_boxes",
    "more_boxes_than_queries",
)


def batch(seed=0, images=2, layers=3, queries=7, places=5, classes=4):
    """Logits, boxes, target boxes and labels; the places between targets are not the last ones."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=(images, places))
    labels[:, 1] = -1
    return (
        np.float32(2 * rng.normal(size=(images, layers, queries, classes + 1))),
        np.float32(rng.uniform(0.05, 0.6, (images, layers, queries, 4))),
        np.float32(rng.uniform(0.05, 0.6, (images, places, 4))),
        np.int32(labels),
    )


def in_graph(*arguments):
    return tf.function(match, autograph=False)(*map(tf.constant, arguments)).numpy()


def best_cost(costs):
    """The least cost of pairing as many rows with columns as there can be, by trying all."""
    if costs.shape[0] > costs.shape[1]:
        costs = costs.T
    rows = range(costs.shape[0])
    return min(
        sum(costs[row, column] for row, column in zip(rows, columns, strict=True))
        for columns in itertools.permutations(range(costs.shape[1]), costs.shape[0])
    )


@pytest.mark.parametrize("case", CASES)
def test_the_pairs_are_the_references(case):
    with np.load(GOLDEN) as file:
        keys = ("logits", "boxes", "target_boxes", "labels", "matches")
        *arguments, expected = (file[f"{case}/{key}"] for key in keys)

    for actual in (match(*arguments).numpy(), in_graph(*arguments)):
        assert actual.dtype == np.int32
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("jit", [False, True])
def test_costs_by_definition(jit):
    logits, boxes, target_boxes, labels = batch()

    actual = tf.function(matching_costs, jit_compile=jit)(logits, boxes, target_boxes, labels)

    assert actual.shape == (2, 3, 5, 7)
    for i, layer, m, q in np.ndindex(2, 3, 5, 7):
        if labels[i, m] < 0:
            continue
        exponentials = np.exp(logits[i, layer, q].astype("float64"))
        probability = exponentials[labels[i, m]] / exponentials.sum()
        box, target = boxes[i, layer, q], target_boxes[i, m]
        giou = overlap(corners(box), corners(target))[1]
        expected = -probability + 5 * l1(box, target) - 2 * giou
        # Two corners a side, areas, their sums and quotients, and a softmax of five classes; 22 is
        # the largest cost that boxes in 0..1 can have.
        assert_close(actual[i, layer, m, q], expected, roundings=30, scale=22)


@pytest.mark.parametrize(("queries", "places"), [(7, 5), (5, 5), (3, 6)])
def test_no_assignment_costs_less(queries, places):
    """With three queries for five targets, the best three targets are matched."""
    arguments = batch(queries=queries, places=places)
    labels = arguments[3]
    costs = matching_costs(*arguments).numpy()

    matches = match(*arguments).numpy()

    assert (matches[:, :, labels[0] < 0] == -1).all()
    for image, layer in np.ndindex(matches.shape[:2]):
        (targets,) = np.nonzero(matches[image, layer] >= 0)
        found = matches[image, layer, targets]
        assert len(set(found)) == len(found) == min(queries, places - 1)
        cost = costs[image, layer, targets, found].sum()
        best = best_cost(costs[image, layer, labels[image] >= 0].astype("float64"))
        assert cost == pytest.approx(best, rel=1e-6)


def test_layers_and_images_are_matched_for_themselves():
    """Queries that are the targets, in another order in each layer of each image."""
    _, _, target_boxes, labels = batch(images=3, layers=4, queries=5, places=5)
    rng = np.random.default_rng(1)
    orders = np.array([[rng.permutation(5) for _ in range(4)] for _ in range(3)])
    boxes = np.take_along_axis(target_boxes[:, None], orders[..., None], axis=2)

    actual = match(np.zeros((3, 4, 5, 5), "float32"), boxes, target_boxes, labels)

    expected = np.where(labels[:, None] >= 0, np.argsort(orders, axis=-1), -1)
    np.testing.assert_array_equal(actual, expected)


def test_equal_costs_are_decided_in_the_same_way_each_time():
    arguments = batch()
    logits, boxes = (np.repeat(values[:, :, :1], 7, axis=2) for values in arguments[:2])
    expected = match(logits, boxes, *arguments[2:])
    for image, layer in np.ndindex(2, 3):
        assert sorted(expected[image, layer].numpy()) == [-1, 0, 1, 2, 3]
    for _ in range(3):
        np.testing.assert_array_equal(in_graph(logits, boxes, *arguments[2:]), expected)


@pytest.mark.parametrize(
    ("output", "bad"),
    [(0, np.nan), (0, np.inf), (1, np.nan), (1, np.inf), (1, -np.inf)],
    ids=["logits-nan", "logits-inf", "boxes-nan", "boxes-inf", "boxes--inf"],
)
def test_queries_that_are_not_finite_are_matched_last(output, bad):
    """The others are matched as if these were not there: 4 targets, of 7 queries 2 are bad."""
    arguments = list(batch())
    good = [values[:, :, [0, 2, 3, 4, 6]] for values in arguments[:2]]
    arguments[output][:, :, [1, 5], 0] = bad

    actual = in_graph(*arguments)

    without = match(*good, *arguments[2:]).numpy()
    renumbered = np.where(without >= 0, np.array([0, 2, 3, 4, 6])[without], -1)
    np.testing.assert_array_equal(actual, renumbered)


def test_outputs_that_are_not_finite_at_all_are_matched():
    logits, boxes, target_boxes, labels = batch()

    actual = in_graph(
        np.full_like(logits, np.nan), np.full_like(boxes, np.inf), target_boxes, labels
    )

    for image, layer in np.ndindex(2, 3):
        found = actual[image, layer][labels[image] >= 0]
        assert len(set(found)) == 4
        assert set(found) <= set(range(7))


def test_few_finite_pairs_are_all_made():
    """Two of three targets have one finite pair each; the third takes what is left."""
    costs = np.full((1, 1, 3, 3), np.nan)
    costs[0, 0, 0, 2], costs[0, 0, 2, 1] = 20, 22
    np.testing.assert_array_equal(least_cost(costs, np.zeros((1, 3))), [[[2, 0, 1]]])


def test_no_places_no_images_and_no_targets():
    for images, places in ((0, 5), (2, 2)):
        logits, boxes, target_boxes, labels = batch(images=images, places=places)
        labels[:] = -1
        actual = in_graph(logits, boxes, target_boxes, labels)
        np.testing.assert_array_equal(actual, np.full((images, 3, places), -1))


def test_the_batch_size_may_be_unknown_and_the_costs_compiled():
    arguments = batch()
    compiled = tf.function(matching_costs, jit_compile=True)

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in arguments],
    )
    def matched(*values):
        matches = assign(compiled(*values), values[-1])
        assert matches.shape.as_list() == [None, 3, 5]
        return matches

    np.testing.assert_array_equal(matched(*arguments), match(*arguments))


def test_half_precision_is_computed_in_float32():
    logits, boxes, target_boxes, labels = batch()
    halves = [tf.cast(values, "bfloat16") for values in (logits, boxes)]
    singles = [tf.cast(values, "float32") for values in halves]
    np.testing.assert_array_equal(
        matching_costs(*halves, target_boxes, labels),
        matching_costs(*singles, target_boxes, labels),
    )


def test_no_gradient_passes():
    logits, boxes, target_boxes, labels = batch()
    logits, boxes = tf.constant(logits), tf.constant(boxes)
    with tf.GradientTape() as tape:
        tape.watch([logits, boxes])
        costs = matching_costs(logits, boxes, target_boxes, labels)
    assert tape.gradient(costs, [logits, boxes]) == [None, None]
