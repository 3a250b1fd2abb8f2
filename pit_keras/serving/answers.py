"""What a model computed, as the values of a JSON answer."""

import numpy as np

from pit_keras.data.preprocessing import evaluation_geometry
from pit_keras.export.saved_model import TOP

OUTPUTS = ("logits", "probabilities", "top_classes", "top_probabilities")


def prediction(logits, class_names):
    """The outputs for one image.

    Args:
        logits: float32 (classes,).
        class_names: One for each.

    Returns:
        A dictionary with `logits` and `probabilities` of all classes, and the names and
        probabilities of the likeliest five, or of all where there are fewer.

    Raises:
        FloatingPointError: If the logits are not finite, of which JSON has no number.
    """
    if not np.isfinite(logits).all():
        raise FloatingPointError("The model's logits of this image are not finite.")
    exponentials = np.exp(logits - logits.max())
    probabilities = exponentials / exponentials.sum()
    best = np.argsort(-probabilities, kind="stable")[:TOP]
    return {
        "logits": _numbers(logits),
        "probabilities": _numbers(probabilities),
        "top_classes": [class_names[index] for index in best],
        "top_probabilities": _numbers(probabilities[best]),
    }


def columns(predictions):
    """The same outputs by name, each a list with one entry for each image."""
    return {name: [prediction[name] for prediction in predictions] for name in OUTPUTS}


def explanation(size, network, stage, maps):
    """Where the model looked in one image.

    Args:
        size: The image's (height, width).
        network: What predicted: its `image_size`, `eval_crop` and `attention`.
        stage: Number of the stage, or None for a model without attention.
        maps: float32 (heads, h, w) of that stage, or None.

    Returns:
        A dictionary with `image`, its height and width; `crop`, the part that the model saw, in
        pixels of the image; and `attention`, None or the maps over that part, of each head and
        their mean.
    """
    height, width = size
    resized, corner = (
        values.numpy().astype(float)
        for values in evaluation_geometry(height, width, network.image_size, network.eval_crop)
    )
    top, left = corner * size / resized
    crop_height, crop_width = np.asarray(network.image_size) * size / resized
    crop = {"top": top, "left": left, "height": crop_height, "width": crop_width}
    return {
        "image": {"height": height, "width": width},
        "crop": {name: float(value) for name, value in crop.items()},
        "attention": None
        if maps is None
        else {
            "stage": stage,
            "block": network.attention[stage].block,
            "mean": _numbers(maps.mean(axis=0)),
            "heads": _numbers(maps),
        },
    }


def _numbers(values):
    """Nested lists of the shortest numbers that are these of float32; others are twice as long."""
    shortest = [float(text) for text in values.astype(str).flat]
    return np.reshape(shortest, values.shape).tolist()
