"""The objects that a detector finds in one image."""

from typing import NamedTuple

THRESHOLD = 0.7  # the least score of an object that is shown, as in DETR's own examples


class FoundObject(NamedTuple):
    name: str  # of its class
    score: float | None  # the class's probability; None for a ground-truth object
    box: tuple[float, float, float, float]  # left, top, right, bottom in pixels, within the image
    label: int  # the class's number


def found_objects(answers, size, class_names, threshold=THRESHOLD):
    """A list of the `FoundObject`s whose score is at least a threshold, the highest first.

    Args:
        answers: Arrays `boxes` (Q, 4), left, top, right, bottom in pixels; `scores` (Q,), 0..1;
            and `labels` (Q,).
        size: Height and width of the image, to which boxes are clipped.
    """
    import numpy as np  # here, since the threshold is all that a command's help needs

    height, width = size
    boxes = np.clip(answers["boxes"], 0, [width, height, width, height])
    order = np.argsort(-answers["scores"], kind="stable")
    ordered = (values[order] for values in (answers["labels"], answers["scores"], boxes))
    return [
        FoundObject(class_names[label], float(score), tuple(box.tolist()), int(label))
        for label, score, box in zip(*ordered, strict=True)
        if score >= threshold
    ]
