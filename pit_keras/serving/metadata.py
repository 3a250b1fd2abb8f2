"""What a server tells about its model, in TensorFlow Serving's form and beyond it."""

from pit_keras.serving.answers import TOP
from pit_keras.serving.request_body import INPUT, SIGNATURES

VERSION = "1"


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
