"""The values of the JSON answers: what a model computed, and what the server says about it."""

import numpy as np

from pit_keras.data.preprocessing import evaluation_geometry
from pit_keras.export.saved_model import TOP
from pit_keras.serving.requests import INPUT, SIGNATURES

VERSION = "1"
# The answer to `GET /v1/models/NAME`: there is one version, and it is ready.
_OK = {"error_code": "OK", "error_message": ""}
STATUS = {"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": _OK}]}


def prediction(logits, class_names):
    """The outputs of one image, by name, from its logits (classes,), float32."""
    if not np.isfinite(logits).all():  # JSON has no number for them
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


def explanation(size, network, stage, maps):
    """Where the model looked in an image of `size` (height, width).

    `crop` is the part that the model saw, in pixels of the image; `attention` has the maps, float32
    (heads, h, w), of a stage's last block. Models without attention have None instead.
    """
    height, width = size
    geometry = evaluation_geometry(height, width, network.image_size, network.eval_crop)
    resized, corner = np.array(geometry, float)
    places = [*(corner * size / resized), *(np.asarray(network.image_size) * size / resized)]
    return {
        "image": {"height": height, "width": width},
        "crop": dict(zip(("top", "left", "height", "width"), map(float, places), strict=True)),
        "attention": None
        if maps is None
        else {
            "stage": stage,
            "block": network.attention[stage].block,
            "mean": _numbers(maps.mean(axis=0)),
            "heads": _numbers(maps),
        },
    }


def metadata(service):
    """The answer to `GET /v1/models/NAME/metadata` of a `Service`.

    Beside TensorFlow Serving's `model_spec` and `metadata` it has `model`, `limits` and
    `statistics`, which counts batches and requests refused with 503.
    """
    network = service.network
    signature = _signature(len(network.class_names))
    signatures = {"signature_def": dict.fromkeys(SIGNATURES, signature)}
    return {
        "model_spec": {"name": service.name, "signature_name": "", "version": VERSION},
        "metadata": {"signature_def": signatures},
        "model": {
            "classes": len(network.class_names),
            "image_size": list(network.image_size),
            "eval_crop": network.eval_crop,
            "apply_orientation": network.apply_orientation,
            "attention": [
                {"stage": stage, "block": each.block, "heads": each.heads, "grid": list(each.grid)}
                for stage, each in network.attention.items()
            ],
        },
        "limits": service.limits._asdict(),
        "statistics": {
            "batches": service.batcher.batches,
            "largest_batch": service.batcher.largest,
            "refused": service.places.refused,
        },
    }


def _numbers(values):
    """Nested lists of the shortest numbers that are these of float32; others are twice as long."""
    return values.astype(str).astype(float).tolist()


def _signature(classes):
    top = min(TOP, classes)
    return {
        "inputs": {INPUT: _tensor("DT_STRING")},
        "outputs": {
            "logits": _tensor("DT_FLOAT", classes),
            "probabilities": _tensor("DT_FLOAT", classes),
            "top_classes": _tensor("DT_STRING", top),
            "top_probabilities": _tensor("DT_FLOAT", top),
        },
        "method_name": "tensorflow/serving/predict",
    }


def _tensor(dtype, *sizes):
    """A tensor's type and shape, of any number of images; sizes are strings, as in protobuf."""
    dimensions = [{"size": str(size), "name": ""} for size in (-1, *sizes)]
    return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}}
