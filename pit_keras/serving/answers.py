"""The values of the JSON answers: what a model computed, and what the server tells about it."""

import numpy as np

from pit_keras.data.preprocessing import evaluation_geometry
from pit_keras.export.saved_model import TOP
from pit_keras.serving.requests import INPUT, SIGNATURES

VERSION = "1"
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


def status():
    """The answer to `GET /v1/models/NAME`: there is one version, and it is ready."""
    status = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": status}]}


def metadata(service):
    """The answer to `GET /v1/models/NAME/metadata`.

    Args:
        service: The `Service`.

    Returns:
        A dictionary with TensorFlow Serving's `model_spec` and `metadata`, and besides `model`,
        what the page needs to know; `limits`; and `statistics`: batches computed, the size of the
        largest, and requests that were refused because the server was busy.
    """
    network, limits = service.network, service.limits
    signature = _signature(len(network.class_names))
    signatures = {"signature_def": dict.fromkeys(SIGNATURES, signature)}
    return {
        "model_spec": {"name": service.name, "signature_name": "", "version": VERSION},
        "metadata": {"signature_def": signatures},
        "model": {
            "classes": len(network.class_names),
            "image_size": list(network.image_size),
            "eval_crop": network.eval_crop,
            "attention": [
                {"stage": stage, "block": each.block, "heads": each.heads, "grid": list(each.grid)}
                for stage, each in network.attention.items()
            ],
        },
        "limits": {
            "max_batch": limits.max_batch,
            "max_queue": limits.max_queue,
            "max_request_bytes": limits.max_request_bytes,
            "max_pixels": limits.max_pixels,
        },
        "statistics": {
            "batches": service.batcher.batches,
            "largest_batch": service.batcher.largest,
            "refused": service.places.refused,
        },
    }


def _numbers(values):
    """Nested lists of the shortest numbers that are these of float32; others are twice as long."""
    shortest = [float(text) for text in values.astype(str).flat]
    return np.reshape(shortest, values.shape).tolist()


def _signature(classes):
    return {
        "inputs": {INPUT: _tensor("DT_STRING")},
        "outputs": {
            "logits": _tensor("DT_FLOAT", classes),
            "probabilities": _tensor("DT_FLOAT", classes),
            "top_classes": _tensor("DT_STRING", min(TOP, classes)),
            "top_probabilities": _tensor("DT_FLOAT", min(TOP, classes)),
        },
        "method_name": "tensorflow/serving/predict",
    }


def _tensor(dtype, *sizes):
    """A tensor's type and shape, of any number of images; sizes are strings, as in protobuf."""
    dimensions = [{"size": str(size), "name": ""} for size in (-1, *sizes)]
    return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}}
