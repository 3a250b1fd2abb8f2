"""Boxes on any backend: their two forms, generalised IoU (GIoU), those that a detector found.

A box is (centre x, centre y, width, height) or its corners (left, top, right, bottom), in pixels or
as shares of an image. All functions take boxes (..., 4) of any float type and compute in float32.

GIoU is our own, since those of Keras 3.15 and keras-cv 0.9 add 1e-7 to the union, so that a box of
0.002 x 0.002 has an IoU of 0.976 with itself, and take no axis of decoder layers.
"""

import keras
import numpy as np
from keras import ops

_SMALLEST = float(np.finfo("float32").tiny)  # of the numbers that have full precision


def centres_to_corners(boxes):
    """(centre x, centre y, width, height) -> (left, top, right, bottom), float32 (..., 4)."""
    return keras.utils.bounding_boxes.convert_format(boxes, source="center_xywh", target="xyxy")


def giou(boxes, others):
    """Generalised IoU (Rezatofighi et al., CVPR 2019) of corners: float32 (...) in -1..1.

    The IoU less the share of the smallest enclosing box that neither box covers, elementwise with
    broadcasting. The share of an area of zero is 0, and the gradient is finite everywhere.
    """
    starts, ends = ops.split(ops.cast(boxes, "float32"), 2, axis=-1)  # (..., 4) -> 2 x (..., 2)
    other_starts, other_ends = ops.split(ops.cast(others, "float32"), 2, axis=-1)
    common = ops.minimum(ends, other_ends) - ops.maximum(starts, other_starts)
    intersection = _area(ops.relu(common))
    union = _area(ends - starts) + _area(other_ends - other_starts) - intersection
    enclosing = _area(ops.maximum(ends, other_ends) - ops.minimum(starts, other_starts))
    return _share(intersection, union) - _share(enclosing - union, enclosing)


def pairwise_giou(boxes, others):
    """`giou` of each of `boxes` (..., N, 4) with each of `others` (..., M, 4): (..., N, M)."""
    return giou(ops.expand_dims(boxes, -2), ops.expand_dims(others, -3))


def _area(sides):
    return sides[..., 0] * sides[..., 1]  # (..., 2) -> (...)


def _share(part, whole):
    """`part / whole`, and 0 with a gradient of 0 where there is no whole."""
    exists = whole > _SMALLEST
    # The division's gradient would be NaN where `whole` is 0, even if its value is not taken.
    return ops.where(exists, part / ops.where(exists, whole, 1.0), 0.0)


def last_outputs(outputs):
    """The last decoder layer's outputs of a masked detector: (B, L, Q, ...) -> (B, Q, ...)."""
    return {name: output[:, -1] for name, output in outputs.items()}


def detected(outputs, sizes):
    """One box for each query, as published DETR's `PostProcess`; nothing is suppressed.

    A query's class is the likeliest beside "no object", its score that class's share of the softmax
    over all classes and "no object".

    Args:
        outputs: A detector's, see `detr.build`.
        sizes: (B, 2) height and width of the images in the pixels wanted.

    Returns:
        `boxes`, float32 (B, Q, 4): left, top, right, bottom in pixels, which may reach beyond the
        image; `scores`, float32 (B, Q); and `labels`, int32 (B, Q).
    """
    probabilities = ops.softmax(ops.cast(outputs["logits"], "float32"), axis=-1)
    # (B, Q, classes + 1) -> (B, Q, 1) each; Keras's argmax is not among TFLite's operations.
    scores, labels = ops.top_k(probabilities[..., :-1], 1)
    corners = centres_to_corners(ops.cast(outputs["boxes"], "float32"))  # (B, Q, 4)
    pixels = ops.tile(ops.flip(ops.cast(sizes, "float32"), axis=1), (1, 2))  # (B, 4)
    return {
        "boxes": corners * pixels[:, None],
        "scores": scores[..., 0],
        "labels": ops.cast(labels[..., 0], "int32"),
    }
