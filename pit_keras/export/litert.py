"""TFLite files as LiteRT runs them: their logits, their sizes and how long a call takes."""

import itertools

import numpy as np

from pit_keras.export.latency import CALLS, median_milliseconds
from pit_keras.export.saved_model import SIGNATURE


def run_tflite(path, images, threads=1):
    """Logits (N, classes) of a TFLite file for uint8 images (H, W, 3) of the model's own size.

    They are as many as there are images, whatever the batch of the file.

    Raises:
        ImportError: If LiteRT is not installed.
    """
    classify = signature(path, threads)
    batch = classify.get_input_details()["images"]["shape"][0]
    logits = [classify(images=filled)["logits"][:count] for filled, count in batches(images, batch)]
    return np.concatenate(logits)


def tflite_latency(path, image, threads=1, calls=CALLS, **others):
    """Median milliseconds of a call of a TFLite file; a call takes the whole batch of the file.

    Args:
        path: The file.
        image: uint8 (H, W, 3) of the model's own size, for all images of the batch.
        **others: What else the file takes of each image, by name.
        threads: Number of threads of LiteRT's.
        calls: Number of timed calls, after a few that are not.

    Raises:
        ImportError: If LiteRT is not installed.
    """
    interpreter = _interpreter(path, threads)
    interpreter.allocate_tensors()
    details = interpreter.get_signature_runner(SIGNATURE).get_input_details()
    for name, value in {"images": image, **others}.items():
        value = np.broadcast_to(value, details[name]["shape"])
        interpreter.set_tensor(details[name]["index"], value)
    return median_milliseconds(interpreter.invoke, calls)


def tflite_sizes(path):
    """Height and width of the images that a TFLite file takes, and its number of classes.

    Raises:
        ValueError: If LiteRT cannot load it.
        ImportError: If LiteRT is not installed.
    """
    try:
        classify = signature(path)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    _, height, width, _ = classify.get_input_details()["images"]["shape"]
    _, classes = classify.get_output_details()["logits"]["shape"]
    return (int(height), int(width)), int(classes)


def batches(images, batch):
    """Images (H, W, 3) in arrays (batch, H, W, 3), each with the number of images in it.

    The last one is filled up with its last image.
    """
    images = iter(images)
    while part := list(itertools.islice(images, batch)):
        yield np.stack(part + part[-1:] * (batch - len(part))), len(part)


def signature(path, threads=1):
    """The function of a TFLite file, called with arrays by name.

    Raises:
        ImportError: If LiteRT is not installed.
    """
    return _interpreter(path, threads).get_signature_runner(SIGNATURE)


def _interpreter(path, threads):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(
            "Running a TFLite file needs the package ai-edge-litert: pip install pit_keras[export]."
        ) from error
    return Interpreter(model_path=str(path), num_threads=int(threads))
