"""The detector's loss against the reference's numbers, its definition, and what it must not see."""

import functools
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from single_boxes import corners, l1, overlap
from tolerances import assert_close

from pit_keras.training.detection_loss import detection_losses, loss_totals

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "detection_loss.npz"
CASES = (
    "usual",
    "an_image_without_boxes",
    "without_boxes",
    "many_boxes",
    "more_boxes_than_queries",
)
IMAGES, LAYERS, QUERIES, PLACES, CLASSES = 3, 2, 6, 4, 5
PUBLISHED = {"no_object_weight": 0.1, "l1_weight": 5.0, "giou_weight": 2.0}
OTHER = {"no_object_weight": 0.3, "l1_weight": 3.0, "giou_weight": 0.7}


@pytest.fixture
def batch():
    """Outputs, targets and matches; images with two, no and three boxes, one place left out."""
    rng = np.random.default_rng(0)
    labels = np.array([[3, -1, 0, -1], [-1, -1, -1, -1], [-1, 4, 2, 2]])
    queries = rng.permuted(np.tile(np.arange(QUERIES), (IMAGES, LAYERS, 1)), axis=-1)
    logits = rng.normal(scale=2, size=(IMAGES, LAYERS, QUERIES, CLASSES + 1))
    logits[0, -1, queries[0, -1, 0], 3] = 20  # one class is found
    outputs = {
        "logits": tf.constant(logits, "float32"),
        "boxes": tf.constant(rng.uniform(0.05, 0.6, (IMAGES, LAYERS, QUERIES, 4)), "float32"),
    }
    targets = {
        "labels": tf.constant(labels, "int32"),
        "boxes": tf.constant(rng.uniform(0.05, 0.6, (IMAGES, PLACES, 4)), "float32"),
    }
    matches = np.where(labels[:, None] >= 0, queries[:, :, :PLACES], -1)
    return outputs, targets, tf.constant(matches, "int32")


def losses_of(outputs, targets, matches, weights=PUBLISHED, totals=None):
    labels, queries = targets["labels"], outputs["logits"].shape[2]
    totals = totals or loss_totals(labels, queries, weights["no_object_weight"])
    return detection_losses(outputs, targets, matches, **totals, **weights)


def gradients_of(outputs, targets, matches, jit=False, no_object_weight=0.1):
    """The loss and its gradients by the logits and by the boxes."""
    results = compiled_gradients(jit)(outputs, targets, matches, no_object_weight)
    return [value.numpy() for value in results]


@functools.cache  # one tracing for all tests
def compiled_gradients(jit):
    @tf.function(jit_compile=jit, autograph=False)
    def compiled(outputs, targets, matches, no_object_weight):
        weights = {**PUBLISHED, "no_object_weight": no_object_weight}
        watched = [outputs["logits"], outputs["boxes"]]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            loss = losses_of(outputs, targets, matches, weights)["loss"]
        return [loss, *map(tf.convert_to_tensor, tape.gradient(loss, watched))]

    return compiled


def by_definition(outputs, targets, matches, no_object_weight, l1_weight, giou_weight):
    """The results of `losses_of`, query by query and pair by pair."""
    logits = outputs["logits"].numpy().astype("float64")
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    labels, target_boxes = targets["labels"].numpy(), targets["boxes"].numpy()
    boxes, layers = (labels >= 0).sum(), []
    for layer in range(LAYERS):
        class_sum = weight_sum = l1_sum = giou_sum = errors = 0
        for image in range(IMAGES):
            target_of = {int(q): m for m, q in enumerate(matches[image, layer]) if q >= 0}
            for query in range(QUERIES):
                target = target_of.get(query)
                label = CLASSES if target is None else labels[image, target]
                weight = no_object_weight if target is None else 1
                class_sum -= weight * log_probabilities[image, layer, query, label]
                weight_sum += weight
                if target is not None:
                    pair = outputs["boxes"][image, layer, query], target_boxes[image, target]
                    l1_sum += l1(*pair)
                    giou_sum += 1 - overlap(*map(corners, pair))[1]
                    errors += logits[image, layer, query].argmax() != label
        layers.append((class_sum / weight_sum, l1_sum / boxes, giou_sum / boxes, errors / boxes))
    loss = sum(c + l1_weight * d + giou_weight * o for c, d, o, _ in layers)
    names = ("class_loss", "l1_loss", "giou_loss", "class_error")
    return {"loss": loss, **dict(zip(names, layers[-1], strict=True))}


def assert_equal(actual, expected, roundings=64):
    """By default for a sum over at most a few dozen pairs or queries, each of a softmax of a few
    classes or of some twenty operations on corners and areas.
    """
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(actual[name], value, roundings=roundings)


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_published_loss(case):
    with np.load(GOLDEN) as file:
        keys = ("logits", "boxes", "labels", "target_boxes", "matches", "losses", "class_errors")
        logits, boxes, labels, target_boxes, matches, losses, errors = (
            file[f"{case}/{key}"] for key in keys
        )
    targets = {"labels": labels, "boxes": target_boxes}
    for layers in (1, 2):  # each of the two is the last one once
        outputs = {"logits": logits[:, :layers], "boxes": boxes[:, :layers]}

        actual = losses_of(outputs, targets, matches[:, :layers])

        names = ("class_loss", "l1_loss", "giou_loss")
        expected = {"loss": (losses[:layers] @ [1, 5, 2]).sum()}
        expected |= dict(zip(names, losses[layers - 1], strict=True))
        assert_equal(actual, expected | {"class_error": errors[layers - 1]})


@pytest.mark.parametrize("weights", [PUBLISHED, OTHER])
def test_matches_the_definition(batch, weights):
    expected = by_definition(*batch, **weights)
    assert 0 < expected["class_error"] < 1
    assert_equal(losses_of(*batch, weights), expected)


def test_totals_of_the_labels(batch):
    """2 + 0 + 3 boxes; of 18 queries 5 have one. With two queries the third box is not matched."""
    labels = batch[1]["labels"]
    for queries, weights in ((6, 5 + 13 * 0.1), (2, 4 + 2 * 0.1)):
        totals = loss_totals(labels, queries, 0.1)
        assert float(totals["box_total"]) == 5
        assert float(totals["class_weight_total"]) == pytest.approx(weights)


def test_shares_of_a_split_batch_add_up_to_the_whole(batch):
    outputs, targets, matches = batch
    whole = losses_of(*batch)
    parts = [
        ({k: v[part] for k, v in outputs.items()}, {k: v[part] for k, v in targets.items()})
        for part in (slice(0, 1), slice(1, 2), slice(2, 3))
    ]
    of_parts = [loss_totals(targets["labels"], QUERIES, 0.1) for _, targets in parts]
    totals = {name: sum(of_part[name] for of_part in of_parts) for name in of_parts[0]}

    shares = [
        losses_of(outputs, targets, matches[i : i + 1], totals=totals)
        for i, (outputs, targets) in enumerate(parts)
    ]

    assert_equal({name: sum(share[name] for share in shares) for name in whole}, whole)


def test_what_stands_where_there_is_no_box_does_not_matter(batch):
    outputs, targets, matches = batch
    is_none, expected = targets["labels"][..., None] < 0, gradients_of(*batch)
    for filler in (-3.0, 1e30, np.nan):
        boxes = tf.where(is_none, filler, targets["boxes"])
        changed = {"labels": targets["labels"], "boxes": boxes}
        for actual, value in zip(gradients_of(outputs, changed, matches), expected, strict=True):
            np.testing.assert_array_equal(actual, value)


@pytest.mark.parametrize("jit", [False, True])
def test_unmatched_queries_learn_only_that_they_are_none(batch, jit):
    matches = batch[2].numpy()
    _, logits_gradient, boxes_gradient = gradients_of(*batch, jit=jit)
    is_matched = np.zeros((IMAGES, LAYERS, QUERIES), bool)
    for image, layer, place in np.argwhere(matches >= 0):
        is_matched[image, layer, matches[image, layer, place]] = True

    assert is_matched.sum() == 5 * LAYERS
    assert (boxes_gradient[~is_matched] == 0).all()
    assert (boxes_gradient[is_matched] != 0).any(axis=-1).all()
    assert (logits_gradient[~is_matched, -1] < 0).all()  # "no object" is to grow
    assert (logits_gradient[~is_matched, :-1] > 0).all()
    assert (logits_gradient[is_matched, -1] > 0).all()


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-12])
def test_degenerate_predicted_boxes_have_finite_gradients(batch, size, jit):
    """Points at the targets' centres and corners, and lines of all lengths."""
    outputs, targets, matches = batch
    boxes, target_boxes = outputs["boxes"].numpy(), targets["boxes"].numpy()
    boxes[..., 2:] = size
    boxes[:, 1, :, 3] = 1.0
    boxes[0, :, :, :2] = target_boxes[0, 0, :2]
    boxes[2, :, :, :2] = target_boxes[2, 1, :2] - target_boxes[2, 1, 2:] / 2
    outputs = {"logits": outputs["logits"], "boxes": tf.constant(boxes)}

    loss, *gradients = gradients_of(outputs, targets, matches, jit=jit)

    assert_equal(
        losses_of(outputs, targets, matches),
        by_definition(*(outputs, targets, matches), **PUBLISHED),
    )
    assert np.isfinite(loss)
    for gradient in gradients:
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("no_object_weight", [0.1, 0.0])
def test_a_batch_without_boxes(batch, no_object_weight):
    outputs, targets, matches = batch
    none = {"labels": -tf.ones_like(targets["labels"]), "boxes": targets["boxes"]}
    weights = {**PUBLISHED, "no_object_weight": no_object_weight}

    losses = losses_of(outputs, none, -tf.ones_like(matches), weights)
    gradients = gradients_of(
        outputs, none, -tf.ones_like(matches), no_object_weight=no_object_weight
    )

    log_probabilities = tf.nn.log_softmax(outputs["logits"])[..., -1]
    expected = -np.mean(log_probabilities, axis=(0, 2)) * (no_object_weight > 0)
    zeros = {"l1_loss": 0, "giou_loss": 0, "class_error": 0}
    assert_equal(losses, {"loss": expected.sum(), "class_loss": expected[-1], **zeros})
    assert (gradients[2] == 0).all()
    assert np.isfinite(gradients[1]).all()


def test_extreme_logits_of_a_matched_query_cost_no_precision(batch):
    """A sum over all queries from which the matched ones were taken off again would lose it."""
    outputs, targets, matches = batch
    logits = outputs["logits"].numpy()
    for image, layer, place in np.argwhere(matches.numpy() >= 0):
        logits[image, layer, matches[image, layer, place]] -= 1e8 * np.eye(CLASSES + 1)[-1]
    outputs = {"logits": tf.constant(logits), "boxes": outputs["boxes"]}
    shifted = by_definition(outputs, targets, matches, **PUBLISHED)
    assert_equal(losses_of(outputs, targets, matches), shifted)


@pytest.mark.parametrize("output", ["logits", "boxes"])
def test_a_value_that_is_not_a_number_is_seen_in_the_loss(batch, output):
    outputs, targets, matches = batch
    values = outputs[output].numpy()
    values[0, 0, matches[0, 0, 0], 0] = np.nan
    assert np.isnan(losses_of({**outputs, output: values}, targets, matches)["loss"])


def test_half_precision_is_computed_in_float32(batch):
    outputs, targets, matches = batch
    halves = {name: tf.cast(values, "bfloat16") for name, values in outputs.items()}
    singles = {name: tf.cast(values, "float32") for name, values in halves.items()}
    losses = losses_of(halves, targets, matches)
    assert all(value.dtype == tf.float32 for value in losses.values())
    assert_equal(losses, losses_of(singles, targets, matches), roundings=0)


def test_the_batch_size_may_be_unknown(batch):
    expected = losses_of(*batch)

    @tf.function(
        autograph=False,
        jit_compile=True,
        input_signature=tf.nest.map_structure(
            lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), batch
        ),
    )
    def compiled(*arguments):
        return losses_of(*arguments)

    assert_equal(compiled(*batch), expected)
