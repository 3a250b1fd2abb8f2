"""SavedModels as TensorFlow runs them: what they answer and how long a call takes."""

import numpy as np
import tensorflow as tf

from pit_keras.export.latency import CALLS, median_milliseconds
from pit_keras.export.saved_model import SIGNATURE
from pit_keras.runs.versioned_folder import find_saved_model


def run_saved_model(path, images):
    """Logits (N, classes) of a SavedModel for a list of uint8 images (H, W, 3) of any sizes.

    Raises:
        FileNotFoundError: If there is no SavedModel at the path.
    """
    return np.concatenate([answer["logits"] for answer in saved_model_answers(path, images)])


def saved_model_answers(path, images):
    """What a SavedModel answers for uint8 images (H, W, 3) of any sizes, one after the other.

    Raises:
        FileNotFoundError: If there is no SavedModel at the path.
    """
    loaded = _load(path)  # its variables live as long as it does
    serve = loaded.signatures[SIGNATURE]
    for image in images:
        answers = serve(images=tf.constant(image[np.newaxis]))
        yield {name: answer.numpy() for name, answer in answers.items()}


def saved_model_latency(path, image, calls=CALLS):
    """Median milliseconds of a call with one image, uint8 (H, W, 3), resizing included.

    It runs on as many threads as TensorFlow has in this process.
    """
    loaded = _load(path)
    serve, images = loaded.signatures[SIGNATURE], tf.constant(image[np.newaxis])
    return median_milliseconds(
        lambda: [each.numpy() for each in serve(images=images).values()], calls
    )


def _load(path):
    folder = find_saved_model(path)
    if folder is None:
        raise FileNotFoundError(f"There is no SavedModel in {path}.")
    return tf.saved_model.load(str(folder))
