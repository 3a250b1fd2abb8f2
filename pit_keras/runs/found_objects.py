"""The objects that a detector has found in one image."""

from typing import NamedTuple

import numpy as np

THRESHOLD = 0.7  # the least score of what is told, as in DETR's own examples


class FoundObject(NamedTuple):
    """One object.

    Attributes:
        name: Of its class.
        score: The class's probability; None of an object that is known, not found.
        box: Left, top, right and bottom in pixels of the image, within it.
        label: The class's number.
    """

    name: str
    score: float | None
    box: tuple[float, float, float, float]
    label: int


def found_objects(answers, size, class_names, threshold=THRESHOLD):
    """The objects of one image whose score is at least a threshold, the highest first.

    Args:
        answers: Arrays `boxes` (Q, 4), left, top, right, bottom in pixels; `scores` (Q,); and
            `labels` (Q,).
        size: Height and width of the image, to which boxes are cut.
        class_names: One for each label.
        threshold: The least score, 0..1.

    Returns:
        A list of `FoundObject`.
    """
    height, width = size
    boxes = np.clip(answers["boxes"], 0, [width, height, width, height])
    order = np.argsort(-answers["scores"], kind="stable")
    return [
        FoundObject(
            name=class_names[answers["labels"][query]],
            score=float(answers["scores"][query]),
            box=tuple(boxes[query].tolist()),
            label=int(answers["labels"][query]),
        )
        for query in order
        if answers["scores"][query] >= threshold
    ]
