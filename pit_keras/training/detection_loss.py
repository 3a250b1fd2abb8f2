"""The detector's loss: published DETR's criterion, divided by totals of the global batch.

classes = matched class against "no object", cross-entropy, weighted
boxes   = l1_weight x L1 + giou_weight x (1 - GIoU), over the matched pairs
loss    = classes + boxes, summed over the decoder layers ("auxiliary losses")
"""

from keras import ops

from pit_keras.models.boxes import centres_to_corners, giou


def loss_totals(labels, queries, no_object_weight):
    """The number of boxes among labels (B, M), -1 for none, and the sum of the class weights.

    The weights are those of all queries in one decoder layer. At most `queries` boxes of an image
    count there, since no more are matched.
    """
    boxes = ops.sum(ops.cast(labels >= 0, "float32"), axis=-1)  # (B, M) -> (B,)
    matched = ops.minimum(boxes, queries)
    weights = matched + no_object_weight * (queries - matched)
    return {"box_total": ops.sum(boxes), "class_weight_total": ops.sum(weights)}


def detection_losses(
    outputs,
    targets,
    matches,
    *,
    box_total,
    class_weight_total,
    no_object_weight,
    l1_weight,
    giou_weight,
):
    """A batch's share of the loss of DETR (Carion et al., ECCV 2020, section 3.1).

    The shares add up to the loss of the global batch, however it is split over replicas and parts:
    `box_total` (less than 1 counts as 1) and `class_weight_total` are sums over the whole update.
    Published DETR divides the class loss by each replica's own weights and averages, so its loss
    depends on which replica gets which image.

    Args:
        outputs: "logits" (B, L, Q, classes + 1), the last one "no object", and "boxes" (B, L, Q, 4)
            of all decoder layers, see `pit_keras.training.matching.match`.
        targets: "labels", integer (B, M), and "boxes" (B, M, 4).
        matches: What `match` returns.
        no_object_weight: Weight in the cross-entropy of queries without a box; the others' is 1.

    Returns:
        Float32 scalars: `loss`; and of the last decoder layer, unweighted, `class_loss`, `l1_loss`,
        `giou_loss` and `class_error`, the share of boxes whose query predicts another class.
    """
    labels, matches = (ops.cast(values, "int32") for values in (targets["labels"], matches))
    box_total = ops.maximum(ops.cast(box_total, "float32"), 1.0)
    weight_total = ops.cast(class_weight_total, "float32")
    # Without boxes and with a weight of 0 the class losses are 0, and so is their total.
    weight_total = ops.where(weight_total > 0, weight_total, 1.0)
    class_losses = _class_sums(outputs["logits"], labels, matches, no_object_weight) / weight_total
    l1_losses, giou_losses = (
        sums / box_total for sums in _box_sums(outputs["boxes"], targets["boxes"], matches)
    )
    layers = class_losses + l1_weight * l1_losses + giou_weight * giou_losses  # (L,)
    return {
        "loss": ops.sum(layers),
        "class_loss": class_losses[-1],
        "l1_loss": l1_losses[-1],
        "giou_loss": giou_losses[-1],
        "class_error": _last_errors(outputs["logits"], labels, matches) / box_total,
    }


def _class_sums(logits, labels, matches, no_object_weight):
    """Weighted cross-entropies, summed over the queries of each decoder layer: (L,)."""
    log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    is_matched = ops.any(
        ops.expand_dims(matches, -1) == ops.arange(logits.shape[2], dtype="int32"), axis=2
    )  # (B, L, M, 1) with (Q,) -> (B, L, Q)
    no_object = ops.where(is_matched, 0.0, log_probabilities[..., -1])
    of_queries = _of_matched(log_probabilities, matches)  # (B, L, M, classes + 1)
    classes = ops.maximum(labels, 0)[:, None, :, None]  # (B, M) -> (B, 1, M, 1)
    of_classes = ops.take_along_axis(of_queries, classes, axis=-1)[..., 0]  # (B, L, M)
    return -(
        _sum_of_layers(ops.where(matches >= 0, of_classes, 0.0))
        + no_object_weight * _sum_of_layers(no_object)
    )


def _box_sums(boxes, target_boxes, matches):
    """L1 distances and 1 - GIoU, each summed over the matched pairs of each layer: 2 x (L,)."""
    # Where there is no pair, the same box twice has no loss; a mask afterwards would let through
    # a gradient that is not finite.
    is_pair = ops.expand_dims(matches >= 0, -1)  # (B, L, M, 1)
    predicted = ops.where(is_pair, _of_matched(ops.cast(boxes, "float32"), matches), 0.5)
    target_boxes = ops.where(is_pair, ops.cast(target_boxes, "float32")[:, None], 0.5)
    distances = ops.sum(ops.abs(predicted - target_boxes), axis=-1)  # (B, L, M)
    overlaps = giou(centres_to_corners(predicted), centres_to_corners(target_boxes))
    return _sum_of_layers(distances), _sum_of_layers(1 - overlaps)


def _last_errors(logits, labels, matches):
    """In the last decoder layer, how many matched queries' largest logit is of another class."""
    queries_classes = ops.argmax(logits[:, -1], axis=-1)  # (B, L, Q, classes + 1) -> (B, Q)
    last = matches[:, -1]  # (B, M)
    classes = ops.take_along_axis(queries_classes, ops.maximum(last, 0), axis=-1)  # (B, M)
    is_error = ops.cast(classes, "int32") != labels
    return ops.sum(ops.cast(ops.logical_and(last >= 0, is_error), "float32"))


def _of_matched(values, matches):
    """(B, L, Q, K) -> (B, L, M, K); the first query's where nothing is matched, to be masked."""
    return ops.take_along_axis(values, ops.maximum(matches, 0)[..., None], axis=2)


def _sum_of_layers(values):
    return ops.sum(values, axis=(0, 2))  # (B, L, M or Q) -> (L,)
