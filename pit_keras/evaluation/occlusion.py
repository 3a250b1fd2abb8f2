"""Occlusion: top-1 accuracy on images whose centre is hidden (paper, table 5)."""

import numpy as np
import tensorflow as tf

from pit_keras.evaluation.classification import classification_counts

FILLS = ("mean", "black")  # zero after normalisation, or before it


def centre_box(image_size, box_size):
    """True within a box in the middle of an image, (H, W, 1); an odd row or column is after it.

    Both sizes are (height, width).
    """
    if not all(0 < box <= side for box, side in zip(box_size, image_size, strict=True)):
        raise ValueError(
            "A box of {} x {} pixels does not fit into images of {} x {}.".format(
                *box_size, *image_size
            )
        )
    inside = np.zeros((*image_size, 1), bool)
    top, left = ((side - box) // 2 for side, box in zip(image_size, box_size, strict=True))
    inside[top : top + box_size[0], left : left + box_size[1]] = True
    return inside


def occlusion_columns(image_size, sizes=None, fill="mean"):
    """Boxes (height, width) by their columns in the table of results.

    Half of each side is "occlusion" (the paper's 112 x 112 of 224 x 224), other boxes are
    "occlusion_56"; those filled with black end in "_black".

    Args:
        sizes: Sides of square boxes in pixels of the model's images; None for half of each side.
        fill: One of `FILLS`.
    """
    half = tuple(side // 2 for side in image_size)
    boxes = [half] if sizes is None else [(size, size) for size in sizes]
    ending = "" if fill == "mean" else f"_{fill}"
    return {f"occlusion{'' if box == half else f'_{box[0]}'}{ending}": box for box in boxes}


def occlusion_counts(boxes, data, fill="mean"):
    """What `Evaluator` measures of images with the boxes of `occlusion_columns` hidden.

    Args:
        data: The `DataConfig` of the images.
        fill: "mean" sets the box to zero in normalised space, the mean colour; "black" sets its
            pixels to zero.
    """
    if fill not in FILLS:
        raise ValueError(f"Unknown fill {fill!r}; known are {', '.join(FILLS)}.")
    level = 0.0 if fill == "mean" else -np.asarray(data.mean) / np.asarray(data.std)
    colour = tf.constant(np.broadcast_to(level, 3), tf.float32)
    hidden = {column: centre_box(data.image_size, box) for column, box in boxes.items()}

    def counts(model, batch):
        sums = {"images": tf.reduce_sum(batch["weight"])}
        for column, inside in hidden.items():
            logits = model(tf.where(inside, colour, batch["image"]), training=False)
            hits = classification_counts(logits, batch["label"], batch["weight"])
            sums[column] = hits["top1"]
        return sums

    return counts
