"""Hungarian matching: which query of a detector answers for which box (DETR, section 3.1).

    matches = match(outputs["logits"], outputs["boxes"], targets["boxes"], targets["labels"])

The costs are those of published DETR, and the total cost of an image's pairs is the least possible.
SciPy finds it, outside of the compiled graph. The same search in the graph, for all images at once,
takes 7 times as long with XLA and 51 times without.
"""

import numpy as np
from keras import ops

from pit_keras.models.boxes import centres_to_corners, pairwise_giou

CLASS_COST, L1_COST, GIOU_COST = 1.0, 5.0, 2.0
# In place of costs that are not finite, above all that boxes in 0..1 can have (22), so that such a
# pair is made only if there is no other.
_NO_PAIR = 1e6


def match(logits, boxes, target_boxes, labels):
    """The query matched to each target, in each decoder layer for itself.

    Needs TensorFlow. Runs eagerly and inside of a `tf.function`, but not in one that XLA compiles;
    XLA may compile `matching_costs`, which is most of the time, and `assign` does the rest. No
    gradient passes. Among equal costs the choice is always the same.

    Args:
        logits: `(B, L, Q, classes + 1)` of each decoder layer's queries; values that are not finite
            are matched like others if need be.
        boxes: `(B, L, Q, 4)`, centre x, centre y, width and height as shares of the image.
        target_boxes: `(B, M, 4)`, likewise.
        labels: Integer `(B, M)`, -1 where there is no target.

    Returns:
        int32 `(B, L, M)`: indices of queries, each at most once in an image and layer; -1 where
        there is no target, and, if there are more targets than queries, for those left over.

    Raises:
        ValueError: If the shapes are not these.
    """
    return assign(matching_costs(logits, boxes, target_boxes, labels), labels)


def assign(costs, labels):
    """What `match` returns, from costs that XLA may have computed, with which it cannot do this.

    Args:
        costs: What `matching_costs` returns.
        labels: Integer `(B, M)`, -1 where there is no target.

    Returns:
        int32 `(B, L, M)`, a TensorFlow tensor.
    """
    import tensorflow as tf

    # Not stateful: it may run whenever its inputs are there, and not at all if nothing needs it.
    matches = tf.numpy_function(least_cost, [costs, labels], tf.int32, stateful=False)
    return tf.ensure_shape(matches, costs.shape[:3])


def matching_costs(logits, boxes, target_boxes, labels):
    """What pairing each target with each query would cost, on any backend.

    Less the probability of the target's class, plus 5 times the L1 distance of the boxes, less 2
    times their GIoU.

    Args and `Raises:` as for `match`. No gradient passes.

    Returns:
        float32 `(B, L, M, Q)`; without meaning where there is no target.
    """
    check_shapes(logits, boxes, target_boxes, labels)
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
    """The assignment of the least total cost, for each image and decoder layer.

    Args:
        costs: NumPy float `(B, L, M, Q)`.
        labels: NumPy integer `(B, M)`, -1 where there is no target.

    Returns:
        NumPy int32 `(B, L, M)`, as `match` does.
    """
    from scipy.optimize import linear_sum_assignment

    matches = np.full(costs.shape[:3], -1, "int32")
    costs = np.where(np.isfinite(costs), costs, _NO_PAIR)
    for image, image_labels in enumerate(labels):
        (targets,) = np.nonzero(image_labels >= 0)
        for layer, layer_costs in enumerate(costs[image]):
            rows, queries = linear_sum_assignment(layer_costs[targets])
            matches[image, layer, targets[rows]] = queries
    return matches


def check_shapes(logits, boxes, target_boxes, labels):
    """Refuses outputs of a detector and targets whose shapes are not those that `match` takes.

    Raises:
        ValueError: If they are not.
    """
    known = {"4": 4}  # sizes by their letter
    for name, axes, tensor in (
        ("logits", "B, L, Q, classes + 1", logits),
        ("boxes", "B, L, Q, 4", boxes),
        ("target boxes", "B, M, 4", target_boxes),
        ("labels", "B, M", labels),
    ):
        shape, letters = tuple(tensor.shape), axes.split(", ")
        if len(shape) != len(letters) or any(
            size is not None and size != known.setdefault(letter, size)
            for letter, size in zip(letters, shape, strict=True)
        ):
            raise ValueError(
                f"The {name} of a detection loss must be ({axes}), got {shape} where "
                f"{', '.join(f'{letter} = {size}' for letter, size in known.items())}."
            )
