"""Time of the detector's matching: SciPy outside of the graph, and the same search inside of it.

    pip install -e .[train]
    python benchmarks/matching.py --output=results/matching.csv

All solve the same assignments, those of a batch's images in all decoder layers, from outputs drawn
at random; that they agree is checked. The number of an image's targets is drawn with a mean of 7,
COCO's, except that one image has 60 and one has none. The search in the graph is the method of
shortest augmenting paths (as SciPy's, Crouse 2016), one `keras.ops.while_loop` for all images and
layers at once, with and without XLA. `match_ms` is the median of a whole call, the costs included,
`assign_ms` that of the assignment alone, `ratio` the latter over that of the first row. The package
has the first row.
"""

import pathlib
import statistics
import time

import numpy as np
import tensorflow as tf
from absl import app, flags
from csv_rows import write_rows
from keras import ops

from pit_keras.training.matching import assign, matching_costs

FLAGS = flags.FLAGS
flags.DEFINE_integer("images", 8, "Images of a batch.", lower_bound=2)
flags.DEFINE_integer("layers", 6, "Decoder layers.", lower_bound=1)
flags.DEFINE_integer("queries", 100, "Queries, and places for targets.", lower_bound=60)
flags.DEFINE_integer("repeats", 15, "Timed calls of each row.", lower_bound=1)
flags.DEFINE_string("output", "results/matching.csv", "The CSV to write.")

CLASSES, MEAN_TARGETS, MOST_TARGETS = 80, 7, 60
FAR = 1e9  # above all costs


def main(_):
    *outputs, labels = batch()
    costs = matching_costs(*outputs, labels)
    rows, expected = [], None
    for method, assignment, jit in (
        ("scipy", assign, False),
        ("graph", assign_in_graph, False),
        ("graph, XLA", assign_in_graph, True),
    ):
        # The costs are compiled by XLA in all rows, as a trainer can have them.
        compiled_costs = tf.function(matching_costs, jit_compile=True, autograph=False)
        compiled = tf.function(assignment, jit_compile=jit, autograph=False)
        matches = compiled(costs, labels).numpy()
        expected = matches if expected is None else expected
        np.testing.assert_array_equal(matches, expected)

        def match(compiled=compiled, compiled_costs=compiled_costs):
            return compiled(compiled_costs(*outputs, labels), labels).numpy()

        assign_ms = milliseconds(lambda compiled=compiled: compiled(costs, labels).numpy())
        rows.append(
            {
                "method": method,
                "images": FLAGS.images,
                "layers": FLAGS.layers,
                "queries": FLAGS.queries,
                "targets": int((labels.numpy() >= 0).sum()),
                "match_ms": round(milliseconds(match), 2),
                "assign_ms": round(assign_ms, 2),
                "ratio": round(assign_ms / (rows[0]["assign_ms"] if rows else assign_ms), 1),
            }
        )
        print(*(f"{key}={value}" for key, value in rows[-1].items()), sep="  ", flush=True)
    write_rows(rows, pathlib.Path(FLAGS.output))


def batch():
    """Logits, boxes, target boxes and labels."""
    generator = np.random.default_rng(0)
    counts = np.minimum(generator.geometric(1 / MEAN_TARGETS, FLAGS.images), MOST_TARGETS)
    counts[0], counts[1] = MOST_TARGETS, 0
    shape = (FLAGS.images, FLAGS.layers, FLAGS.queries)
    labels = generator.integers(CLASSES, size=(FLAGS.images, FLAGS.queries))
    return (
        tf.constant(generator.normal(size=(*shape, CLASSES + 1)), tf.float32),
        tf.constant(generator.uniform(size=(*shape, 4)), tf.float32),
        tf.constant(generator.uniform(size=(FLAGS.images, FLAGS.queries, 4)), tf.float32),
        tf.constant(np.where(np.arange(FLAGS.queries) < counts[:, None], labels, -1), tf.int32),
    )


def milliseconds(function):
    function()
    times = []
    for _ in range(FLAGS.repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def assign_in_graph(costs, labels):
    """As `pit_keras.training.matching.assign`, for targets that come first and are no more than
    queries, with `keras.ops` alone.
    """
    images, layers, places, queries = costs.shape
    problems = images * layers
    costs = ops.reshape(costs, (problems, places, queries))
    counts = ops.sum(ops.cast(labels >= 0, "int32"), axis=-1)  # (images,)
    counts = ops.repeat(counts, layers)  # (P,)

    def add_target(target, row_duals, column_duals, target_of):
        """Finds for one target of all problems the shortest path to a free query."""
        is_open = target < counts  # (P,)
        path = shortest_path(costs, target, is_open, row_duals, column_duals, target_of)
        row_duals, column_duals = moved_duals(
            target, is_open, path, row_duals, column_duals, target_of
        )
        return target + 1, row_duals, column_duals, augmented(target, is_open, path, target_of)

    _, _, _, target_of = ops.while_loop(
        lambda target, *_: target < ops.max(counts),
        add_target,
        (
            ops.zeros((), "int32"),
            ops.zeros((problems, places)),
            ops.zeros((problems, queries)),
            ops.full((problems, queries), -1, "int32"),
        ),
    )
    is_match = target_of[:, None, :] == ops.arange(places, dtype="int32")[:, None]  # (P, M, Q)
    matches = ops.where(ops.any(is_match, -1), ops.argmax(ops.cast(is_match, "int32"), -1), -1)
    return ops.reshape(ops.cast(matches, "int32"), (images, layers, places))


def shortest_path(costs, target, is_open, row_duals, column_duals, target_of):
    """Dijkstra's search over reduced costs, from one target of each problem to a free query.

    Returns the distances (P, Q) of the queries, which of them are done (P, Q), from which target
    each was reached (P, Q), the free query at the end (P,) and its distance (P,).
    """
    shape = (costs.shape[0], costs.shape[2])
    numbers = ops.arange(shape[1], dtype="int32")

    def is_searching(_, __, ___, ____, end, _____):
        return ops.any(end < 0)

    def advance(distances, is_done, source, current, end, lowest):
        goes_on = end < 0  # (P,)
        rows = ops.take_along_axis(costs, current[:, None, None], axis=1)[:, 0]  # (P, Q)
        duals = ops.take_along_axis(row_duals, current[:, None], axis=1)
        through = lowest[:, None] + rows - duals - column_duals
        is_shorter = ops.logical_and(~is_done, through < distances)
        is_shorter = ops.logical_and(is_shorter, goes_on[:, None])
        distances = ops.where(is_shorter, through, distances)
        source = ops.where(is_shorter, current[:, None], source)
        candidates = ops.where(is_done, FAR, distances)
        nearest = ops.cast(ops.argmin(candidates, axis=-1), "int32")
        lowest = ops.where(goes_on, ops.min(candidates, axis=-1), lowest)
        is_done = is_done | ((numbers == nearest[:, None]) & goes_on[:, None])
        taken_by = ops.take_along_axis(target_of, nearest[:, None], axis=1)[:, 0]
        end = ops.where(goes_on & (taken_by < 0), nearest, end)
        current = ops.where(goes_on & (taken_by >= 0), taken_by, current)
        return distances, is_done, source, current, end, lowest

    distances, is_done, source, _, end, lowest = ops.while_loop(
        is_searching,
        advance,
        (
            ops.full(shape, FAR),
            ops.zeros(shape, "bool"),
            ops.full(shape, -1, "int32"),
            ops.full((shape[0],), target, "int32"),
            ops.where(is_open, -1, 0),  # a problem without this target is at its end
            ops.zeros((shape[0],)),
        ),
    )
    return distances, is_done, source, end, lowest


def moved_duals(target, is_open, path, row_duals, column_duals, target_of):
    """The dual variables after a search: reduced costs stay positive, and 0 on the path."""
    distances, is_done, _, _, lowest = path
    places = ops.arange(row_duals.shape[1], dtype="int32")
    slack = ops.where(is_done, lowest[:, None] - distances, 0.0)  # (P, Q)
    # Targets of queries that are done go up by as much as their queries go down.
    is_of = ops.cast(target_of[:, None, :] == places[:, None], "float32")  # (P, M, Q)
    row_duals = row_duals + ops.sum(is_of * slack[:, None, :], axis=-1)
    own = ops.cast((places == target) & is_open[:, None], "float32")
    return row_duals + own * lowest[:, None], column_duals - slack


def augmented(target, is_open, path, target_of):
    """The matches with the path's pairs in place of those that it crosses."""
    _, _, source, end, _ = path
    numbers = ops.arange(target_of.shape[1], dtype="int32")

    def step(target_of, query, goes_on):
        reached_from = ops.take_along_axis(source, query[:, None], axis=1)[:, 0]  # (P,)
        is_here = (numbers == query[:, None]) & goes_on[:, None]
        goes_on = goes_on & (reached_from != target)
        # The query that this target had until now has to take another.
        had = (target_of == reached_from[:, None]) & ~is_here
        before = ops.cast(ops.argmax(ops.cast(had, "int32"), axis=-1), "int32")
        target_of = ops.where(is_here, reached_from[:, None], target_of)
        return target_of, ops.where(goes_on, before, query), goes_on

    target_of, _, _ = ops.while_loop(
        lambda _, __, goes_on: ops.any(goes_on), step, (target_of, end, is_open)
    )
    return target_of


if __name__ == "__main__":
    app.run(main)
