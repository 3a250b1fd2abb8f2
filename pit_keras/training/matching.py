"""Hungarian matching: which query of a detector answers for which box (DETR, section 3.1).

    matches = match(outputs["logits"], outputs["boxes"], targets["boxes"], targets["labels"])

The costs are those of published DETR. SciPy finds the pairs of least total cost, outside the
compiled graph; a search in the graph takes 7 times as long with XLA and 51 times without.
"""

import numpy as np
from keras import ops

from pit_keras.models.boxes import centres_to_corners, pairwise_giou

CLASS_COST, L1_COST, GIOU_COST = 1.0, 5.0, 2.0
# Replaces costs that are not finite. Boxes in 0..1 cost at most 22, so such a pair is made only if
# there is no other.
_NO_PAIR = 1e6


def match(logits, boxes, target_boxes, labels):
    """The query matched to each target, in each decoder layer; no gradient passes.

    Needs TensorFlow, eagerly or in a `tf.function`. XLA can compile `matching_costs`, which takes
    most of the time, but not `assign`. Equal costs are always resolved in the same way.

    Args:
        logits: (B, L, Q, classes + 1) of each decoder layer's queries.
        boxes, target_boxes: (B, L, Q, 4) and (B, M, 4), centre x, centre y, width and height as
            shares of the image.
        labels: Integer (B, M), -1 where there is no target.

    Returns:
        int32 (B, L, M): queries; -1 where there is no target, or no query is left for it.
    """
    return assign(matching_costs(logits, boxes, target_boxes, labels), labels)


def assign(costs, labels):
    """The second half of `match`, from the costs (B, L, M, Q)."""
    import tensorflow as tf

    # Not stateful: TensorFlow may run it whenever its inputs are there, or skip it.
    matches = tf.numpy_function(least_cost, [costs, labels], tf.int32, stateful=False)
    return tf.ensure_shape(matches, costs.shape[:3])


def matching_costs(logits, boxes, target_boxes, labels):
    """The first half of `match`, on any backend: the cost of each target with each query.

    -1 x the probability of the target's class + 5 x the L1 distance of the boxes - 2 x their GIoU:
    float32 (B, L, M, Q), meaningless where there is no target.
    """
    logits, boxes = ops.stop_gradient(logits), ops.stop_gradient(boxes)
    # Not the softmax: where one logit is NaN, TensorFlow's is 0 for the other classes.
    log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    classes = ops.maximum(ops.cast(labels, "int32"), 0)[:, None, None, :]  # (B, 1, 1, M)
    of_class = ops.exp(ops.take_along_axis(log_probabilities, classes, axis=-1))  # (B, L, Q, M)
    of_class = ops.transpose(of_class, (0, 1, 3, 2))  # -> (B, L, M, Q)
    targets = ops.cast(target_boxes, "float32")[:, None]  # (B, M, 4) -> (B, 1, M, 4)
    boxes = ops.cast(boxes, "float32")
    distances = sum(
        ops.abs(target[..., :, None] - value[..., None, :])
        for target, value in zip(
            ops.unstack(targets, num=4, axis=-1), ops.unstack(boxes, num=4, axis=-1), strict=True
        )
    )
    overlaps = pairwise_giou(centres_to_corners(targets), centres_to_corners(boxes))
    return L1_COST * distances - CLASS_COST * of_class - GIOU_COST * overlaps


def least_cost(costs, labels):
    """`assign` in NumPy."""
    from scipy.optimize import linear_sum_assignment

    matches = np.full(costs.shape[:3], -1, "int32")
    costs = np.where(np.isfinite(costs), costs, _NO_PAIR)
    for image, image_labels in enumerate(labels):
        (targets,) = np.nonzero(image_labels >= 0)
        for layer, layer_costs in enumerate(costs[image]):
            rows, queries = linear_sum_assignment(layer_costs[targets])
            matches[image, layer, targets[rows]] = queries
    return matches
