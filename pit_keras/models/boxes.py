"""Boxes: their two forms, IoU and generalised IoU (GIoU), on any backend.

A box is (centre x, centre y, width, height) or its corners (left, top, right, bottom), in pixels or
as shares of an image. All functions take boxes (..., 4) of any float type and compute in float32.

IoU and GIoU are our own, since those of Keras 3.15 and keras-cv 0.9 add 1e-7 to the union, so that
a box of 0.002 x 0.002 has an IoU of 0.976 with itself, and take no axis of decoder layers.
"""

import keras
import numpy as np
from keras import ops

_SMALLEST = float(np.finfo("float32").tiny)  # of the numbers that have full precision


def centres_to_corners(boxes):
    """(centre x, centre y, width, height) -> (left, top, right, bottom), float32 (..., 4)."""
    return keras.utils.bounding_boxes.convert_format(boxes, source="center_xywh", target="xyxy")


def iou(boxes, others):
    """Intersection over union of corners, elementwise with broadcasting: float32 (...) in 0..1.

    It is 0 where both boxes are without area.
    """
    intersection, union, _ = _areas(boxes, others)
    return _share(intersection, union)


def giou(boxes, others):
    """Generalised IoU (Rezatofighi et al., CVPR 2019) of corners: float32 (...) in -1..1.

    The IoU less the share of the smallest enclosing box that neither box covers. The share of an
    area of zero is 0, and the gradient is finite everywhere.
    """
    intersection, union, enclosing = _areas(boxes, others)
    return _share(intersection, union) - _share(enclosing - union, enclosing)


def pairwise_giou(boxes, others):
    """`giou` of each of `boxes` (..., N, 4) with each of `others` (..., M, 4): (..., N, M)."""
    return giou(ops.expand_dims(boxes, -2), ops.expand_dims(others, -3))


def _areas(boxes, others):
    """Areas of the intersection, of the union and of the smallest box around both."""
    left, top, right, bottom = _sides(boxes)
    other_left, other_top, other_right, other_bottom = _sides(others)
    width = ops.minimum(right, other_right) - ops.maximum(left, other_left)
    height = ops.minimum(bottom, other_bottom) - ops.maximum(top, other_top)
    intersection = ops.relu(width) * ops.relu(height)
    area = (right - left) * (bottom - top)
    other_area = (other_right - other_left) * (other_bottom - other_top)
    enclosing_width = ops.maximum(right, other_right) - ops.minimum(left, other_left)
    enclosing_height = ops.maximum(bottom, other_bottom) - ops.minimum(top, other_top)
    return intersection, area + other_area - intersection, enclosing_width * enclosing_height


def _sides(boxes):
    return ops.unstack(ops.cast(boxes, "float32"), num=4, axis=-1)  # (..., 4) -> 4 x (...)


def _share(part, whole):
    """`part / whole`, and 0 with a gradient of 0 where there is no whole."""
    exists = whole > _SMALLEST
    # The division's gradient would be NaN where `whole` is 0, even if its value is not taken.
    return ops.where(exists, part / ops.where(exists, whole, 1.0), 0.0)
