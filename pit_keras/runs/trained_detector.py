"""A trained detector with what one needs to use it: its classes' names and its preprocessing."""

import dataclasses
import functools
import pathlib
import warnings

import keras
import numpy as np
from keras import ops

from pit_keras.config.fields import DataConfig
from pit_keras.data.detection_preprocessing import preprocess_detection
from pit_keras.models.detr import is_detector, masked_detector
from pit_keras.models.detr_outputs import detected, last_outputs
from pit_keras.runs.found_objects import THRESHOLD, found_objects
from pit_keras.runs.trained_model import (
    as_classifier,
    checked_names,
    read_images,
    read_model_file,
)

# The short and the long side that the PiT paper's detectors see, half of DETR's.
IMAGE_SIZE = (400, 600)


@dataclasses.dataclass(frozen=True)
class TrainedDetector:
    """A detector, ready for images from files.

    Attributes:
        model: Normalised images (B, H, W, 3) to logits and boxes, see `pit_keras.models.detr`.
        class_names: One for each class, "no object" not among them.
        data: The `DataConfig` whose image size (short and long side), mean and std count.
        folder: The run folder that it comes from; None if it does not come from one.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    data: DataConfig
    folder: pathlib.Path | None = None

    @property
    def fixed_size(self):
        """Height and width of the images that the model takes; None if it takes all."""
        return fixed_size(self.model)

    @functools.cached_property
    def _masked(self):
        return masked_detector(self.model)

    def outputs(self, inputs):
        """The `logits` and `boxes` of images and their padding; see `preprocess_detection`."""
        return last_outputs(self._masked(inputs, training=False))

    def answers(self, image, fixed_size=None):
        """What `detected` says of an image: boxes in its pixels, which may reach beyond it.

        Args:
            image: uint8 (H, W, 3), of any size.
            fixed_size: Height and width that it is filled up to, see `preprocess_detection`; None
                for what evaluation does.
        """
        size = fixed_size or self.fixed_size
        inputs = preprocess_detection(image[np.newaxis], self.data, size)
        answers = detected(self.outputs(inputs), np.array([image.shape[:2]]))
        return {name: ops.convert_to_numpy(value)[0] for name, value in answers.items()}

    def detections_of(self, images, threshold=THRESHOLD):
        """The objects in one or more uint8 images (H, W, 3), each of any size.

        Args:
            images: The images, which are seen as in evaluation.
            threshold: Least score of what is told, 0..1.

        Returns:
            For each image a list of `FoundObject`, the highest score first.
        """
        return [
            found_objects(self.answers(image), image.shape[:2], self.class_names, threshold)
            for image in images
        ]


def detect(detector, paths, threshold=THRESHOLD):
    """The objects in image files.

    Args:
        detector: A `TrainedDetector`, or anything with its `detections_of`.
        paths: JPEG or PNG files.
        threshold: Least score of what is told, 0..1.

    Returns:
        For each file a list of `FoundObject`, the highest score first.

    Raises:
        FileNotFoundError, ValueError: If a file is missing or not an image; all files are read
            before the first is shown to the model.
    """
    return detector.detections_of(read_images(paths), threshold)


def load_trained_detector(path, class_names=None):
    """Loads the detector of a run folder or a `.keras` file.

    Args:
        path: A run folder, or a `.keras` file; one that lies in a run folder is taken with it.
        class_names: Names in the order of the logits; None for the run folder's, or numbers.

    Raises:
        FileNotFoundError: If there is no such file, or the run has no model yet.
        ValueError: If the file is not a detector, or the names do not fit its logits.
    """
    return as_detector(read_model_file(path), class_names)


def load_any(path, class_names=None):
    """The `TrainedModel` or the `TrainedDetector` of a run folder or a `.keras` file.

    Args and Raises: As for `load_trained_model` and `load_trained_detector`.
    """
    read = read_model_file(path)
    return (as_detector if is_detector(read.model) else as_classifier)(read, class_names)


def as_detector(read, class_names=None):
    """The `TrainedDetector` of a `ModelFile`; see `load_trained_detector`."""
    model, file, run = read
    if not is_detector(model):
        raise ValueError(f"{file} is not a detector such as detr_pit_s, which is wanted here.")
    data = DataConfig(image_size=IMAGE_SIZE) if run is None else run.read_config().data
    fixed = fixed_size(model)
    if run is None and fixed is None:
        warnings.warn(
            f"{file} is not in its run's folder, which knows the size of its images: they are "
            f"resized to a short side of {IMAGE_SIZE[0]} and a long one of at most "
            f"{IMAGE_SIZE[1]} pixels.",
            stacklevel=3,
        )
    if fixed is not None:
        data = dataclasses.replace(data, image_size=tuple(sorted(fixed)))
    classes = model.output["logits"].shape[-1] - 1
    names = checked_names(read.class_names(class_names), classes, file)
    return TrainedDetector(model, names, data, read.folder)


def fixed_size(model):
    """Height and width of the images that a detector takes; None if it takes all."""
    size = tuple(model.input_shape[1:3])
    return None if None in size else size
