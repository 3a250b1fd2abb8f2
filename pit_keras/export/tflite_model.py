"""A TFLite file of ours as a classifier of image files, run by LiteRT."""

import dataclasses
import json
import pathlib
import zipfile

import tensorflow as tf

from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.export.class_names import CLASSES_FILE
from pit_keras.export.litert import run_tflite, tflite_sizes
from pit_keras.export.preprocessing_text import PREPROCESSING_FILE


@dataclasses.dataclass(frozen=True)
class TFLiteModel:
    """Like a `TrainedModel`, but run by LiteRT from a file that `export_tflite` wrote.

    Attributes:
        path: The file.
        class_names: One for each logit.
        image_size: Height and width that it takes.
        eval_crop: Centre crop's share of the short side.
    """

    path: pathlib.Path
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    eval_crop: float

    def logits(self, images):
        """Logits (N, classes) of one or more uint8 images (H, W, 3), each of any size."""
        crops = (resize_and_crop(image, self.image_size, self.eval_crop) for image in images)
        return run_tflite(self.path, (tf.cast(crop, tf.uint8).numpy() for crop in crops))


def load_tflite_model(path, class_names=None):
    """Reads a file that `export_tflite` wrote.

    Args:
        path: The file.
        class_names: Names in the order of the logits; None for the file's own.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it was not written by `export_tflite`, or the names do not fit its logits.
        ImportError: If LiteRT is not installed.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a TFLite file.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.read(CLASSES_FILE).decode().splitlines()
            eval_crop = json.loads(archive.read(PREPROCESSING_FILE))["eval_crop"]
        image_size, classes = tflite_sizes(path)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} was not written by pit-keras export, or is damaged.") from error
    names = tuple(names if class_names is None else class_names)
    if len(names) != classes:
        raise ValueError(f"There are {len(names)} class names for the {classes} classes of {path}.")
    return TFLiteModel(path, names, image_size, eval_crop)
