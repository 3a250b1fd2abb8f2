"""Occlusion: top-1 accuracy on images whose centre is hidden (paper, table 5)."""

import numpy as np
import tensorflow as tf

from pit_keras.evaluation.classification import classification_counts


def centre_box(image_size, box_size):
    """True within a box (height, width) in the middle of an image, (H, W, 1).

    An odd row or column is after it.
    """
    if any(box > side for box, side in zip(box_size, image_size, strict=True)):
        sizes = "{} x {} pixels does not fit into images of {} x {}".format(*box_size, *image_size)
        raise ValueError(f"A box of {sizes}.")
    inside = np.zeros((*image_size, 1), bool)
    top, left = ((side - box) // 2 for side, box in zip(image_size, box_size, strict=True))
    inside[top : top + box_size[0], left : left + box_size[1]] = True
    return inside


def occlusion_columns(image_size, sizes=None, fill="mean"):
    """Boxes (height, width) by their columns in the table of results.

    `sizes` are sides of square boxes in pixels of the model's images; None for half of each side,
    "occlusion" (the paper's 112 x 112 of 224 x 224). Other boxes are "occlusion_56"; those filled
    with black end in "_black".
    """
    half = tuple(side // 2 for side in image_size)
    boxes = [half] if sizes is None else [(size, size) for size in sizes]
    ending = "" if fill == "mean" else f"_{fill}"
    return {f"occlusion{'' if box == half else f'_{box[0]}'}{ending}": box for box in boxes}


def occlusion_counts(boxes, data, fill="mean"):
    """What `Evaluator` measures of images with the boxes of `occlusion_columns` hidden.

    The fill "mean" is zero in normalised space, the mean colour; "black" is zero before it.
    """
    levels = {"mean": np.zeros(3), "black": -np.asarray(data.mean) / np.asarray(data.std)}
    colour = tf.constant(levels[fill], tf.float32)
    hidden = {column: centre_box(data.image_size, box) for column, box in boxes.items()}

    def counts(model, batch):
        sums = {"images": tf.reduce_sum(batch["weight"])}
        for column, inside in hidden.items():
            logits = model(tf.where(inside, colour, batch["image"]), training=False)
            sums[column] = classification_counts(logits, batch["label"], batch["weight"])["top1"]
        return sums

    return counts
