"""A trained detector with its class names and its preprocessing."""

import dataclasses
import functools
import pathlib
import warnings

import keras
import numpy as np
from keras import ops

from pit_keras.config.fields import DataConfig
from pit_keras.data.detection_preprocessing import preprocess_detection
from pit_keras.models.boxes import detected, last_outputs
from pit_keras.models.detr import is_detector, masked_detector
from pit_keras.runs.found_objects import THRESHOLD, found_objects
from pit_keras.runs.trained_model import (
    as_classifier,
    names_of_classes,
    read_images,
    read_model_file,
)

# The short and the long side that the PiT paper's detectors see, half of DETR's.
IMAGE_SIZE = (400, 600)


@dataclasses.dataclass(frozen=True)
class TrainedDetector:
    """A detector, ready for images from files."""

    model: keras.Model  # normalised images (B, H, W, 3) -> see `pit_keras.models.detr`
    class_names: tuple[str, ...]  # "no object" is not among them
    data: DataConfig  # of its training; image size (short, long), mean, std, orientation count
    folder: pathlib.Path | None = None  # its run folder

    apply_orientation = property(lambda self: self.data.apply_orientation)

    @property
    def fixed_size(self):
        """Height and width of the images that the model takes; None if it takes all."""
        size = tuple(self.model.input_shape[1:3])
        return None if None in size else size

    @functools.cached_property
    def _masked(self):
        return masked_detector(self.model)

    def outputs(self, inputs):
        """The `logits` and `boxes` of images and their padding; see `preprocess_detection`."""
        return last_outputs(self._masked(inputs, training=False))

    def answers(self, image, fixed_size=None):
        """The `detected` objects of a uint8 image (H, W, 3): boxes in its pixels, or beyond it.

        `fixed_size` is the height and width that `preprocess_detection` fills it up to.
        """
        size = fixed_size or self.fixed_size
        inputs = preprocess_detection(image[np.newaxis], self.data, size)
        answers = detected(self.outputs(inputs), np.array([image.shape[:2]]))
        return {name: ops.convert_to_numpy(value)[0] for name, value in answers.items()}

    def detections_of(self, images, threshold=THRESHOLD):
        """For each uint8 image (H, W, 3) its `FoundObject`s, the highest score (0..1) first."""
        return [
            found_objects(self.answers(image), image.shape[:2], self.class_names, threshold)
            for image in images
        ]


def detect(detector, paths, threshold=THRESHOLD):
    """The objects in image files, all of which are read before the first is shown to the model."""
    images = read_images(paths, detector.apply_orientation)
    return detector.detections_of(images, threshold)


def load_trained_detector(path, class_names=None):
    """Loads the detector of a run folder or a `.keras` file; classes without names are numbered."""
    return as_detector(*read_model_file(path), class_names)


def load_any(path, class_names=None):
    """The `TrainedModel` or the `TrainedDetector` of a run folder or a `.keras` file."""
    model, file, run = read_model_file(path)
    return (as_detector if is_detector(model) else as_classifier)(model, file, run, class_names)


def as_detector(model, file, run, class_names=None):
    """The `TrainedDetector` of what `read_model_file` gives."""
    if not is_detector(model):
        raise ValueError(f"{file} is not a detector such as detr_pit_s, which is wanted here.")
    data = DataConfig(image_size=IMAGE_SIZE) if run is None else run.read_config().data
    names = names_of_classes(class_names, model.output["logits"].shape[-1] - 1, file, run)
    trained = TrainedDetector(model, names, data, run and run.path)
    if trained.fixed_size is not None:
        data = dataclasses.replace(data, image_size=tuple(sorted(trained.fixed_size)))
        return dataclasses.replace(trained, data=data)
    if run is None:
        warnings.warn(
            f"{file} is in no run folder, so images are resized to a short side of {IMAGE_SIZE[0]} "
            f"and a long side of at most {IMAGE_SIZE[1]} pixels.",
            stacklevel=3,
        )
    return trained
