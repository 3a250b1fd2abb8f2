"""From a detector's outputs to the boxes, classes and scores of an image."""

from keras import ops

from pit_keras.models.boxes import centres_to_corners


def last_outputs(outputs):
    """The last decoder layer's outputs of a masked detector: (B, L, Q, ...) -> (B, Q, ...)."""
    return {name: output[:, -1] for name, output in outputs.items()}


def detected(outputs, sizes):
    """One box for each query, as published DETR's `PostProcess`; nothing is suppressed.

    A query's class is the likeliest beside "no object", its score that class's share of the softmax
    over all classes and "no object".

    Args:
        outputs: `logits` (B, Q, classes + 1), the last for "no object", and `boxes` (B, Q, 4):
            centre x, centre y, width, height as shares of the image.
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
