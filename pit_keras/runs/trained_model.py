"""A trained model with its class names and its preprocessing."""

import dataclasses
import pathlib
import warnings

import keras
import numpy as np
from keras import ops

from pit_keras import imagenet
from pit_keras.config.fields import DataConfig
from pit_keras.data.class_matching import comparable
from pit_keras.data.preprocessing import load_image, normalise, preprocess_evaluation
from pit_keras.models.detr import is_detector
from pit_keras.models.serialization import read_model
from pit_keras.runs.run_folder import find_model, read_class_names


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A classifier, ready for images from files."""

    model: keras.Model  # normalised images (B, H, W, 3) -> logits (B, classes)
    class_names: tuple[str, ...]
    data: DataConfig  # of its training; image size, evaluation crop, mean, std, orientation count
    folder: pathlib.Path | None = None  # its run folder

    apply_orientation = property(lambda self: self.data.apply_orientation)

    def logits(self, images):
        """Logits (N, classes) of one or more uint8 images (H, W, 3), each of any size."""
        # One by one: sizes differ, and most calls are for one image.
        prepared = (preprocess_evaluation(image, self.data)[None] for image in images)
        return self._outputs(prepared)

    def logits_of_crops(self, crops, batch_size=16):
        """Logits (N, classes) of images of the model's own size, uint8 (N, H, W, 3)."""
        batches = (crops[at : at + batch_size] for at in range(0, len(crops), batch_size))
        prepared = (normalise(batch, self.data.mean, self.data.std) for batch in batches)
        return self._outputs(prepared)

    def _outputs(self, batches):
        outputs = [self.model(batch, training=False) for batch in batches]
        return np.concatenate([ops.convert_to_numpy(output) for output in outputs])


def predict(classifier, paths, top=5):
    """For each JPEG or PNG file a list of its `top` (class name, probability), likeliest first.

    All files are read before the first is shown to the model. `classifier` is a `TrainedModel`, or
    anything with its `logits`, `class_names` and `apply_orientation`.
    """
    images = read_images(paths, classifier.apply_orientation)
    probabilities = ops.convert_to_numpy(ops.softmax(classifier.logits(images), axis=-1))
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
    return [
        [(classifier.class_names[index], float(row[index])) for index in best]
        for row, best in zip(probabilities, order, strict=True)
    ]


def read_images(paths, apply_orientation):
    """The images of files, uint8 (H, W, 3), after all files were found to be images.

    They are read twice rather than kept: a folder of photographs does not fit into memory.
    """
    readable = [path for path in paths if load_image(path).size]
    if not readable:
        raise ValueError("There are no images to look at.")
    return (load_image(path, apply_orientation) for path in readable)


def read_model_file(path):
    """The Keras model of a run folder or a `.keras` file, the file, and the `RunFolder` or None.

    A file in a run folder is taken with the folder.
    """
    file, folder = find_model(path)
    return read_model(file), file, folder


def load_trained_model(path, class_names=None):
    """Loads the classifier of a run folder or a `.keras` file.

    `class_names` are in the order of the logits; None for the run folder's. Without either, a model
    of 1000 classes gets ImageNet's names, with a warning.
    """
    return as_classifier(*read_model_file(path), class_names)


def as_classifier(model, file, run, class_names=None):
    """The `TrainedModel` of what `read_model_file` gives."""
    _check_classifier(model, file)
    data = DataConfig() if run is None else run.read_config().data
    data = dataclasses.replace(data, image_size=tuple(model.input_shape[1:3]))
    classes = model.output_shape[-1]
    if class_names is None and run is None and classes == imagenet.CLASSES:
        warnings.warn(
            f"{file} has no class names; its 1000 classes are called by ImageNet's names.",
            stacklevel=3,
        )
        class_names = imagenet.class_names()
    names = names_of_classes(class_names, classes, file, run)
    return TrainedModel(model, names, data, run and run.path)


def names_of_classes(given, classes, file, run):
    """The given names, else the run folder's, else numbers.

    Other names than the run's, such as translations, may be given, but none in another's place.
    """
    if given is None and run is None:
        return tuple(f"class {index}" for index in range(classes))
    names = run.read_class_names(classes) if given is None else tuple(given)
    if len(names) != classes:
        raise ValueError(f"There are {len(names)} class names for the {classes} classes of {file}.")
    if given is not None and run is not None and run.classes.exists():
        own = [name.casefold() for name in comparable(read_class_names(run.classes))]
        for place, name in enumerate(comparable(names)):
            if name.casefold() in own and own[place] != name.casefold():
                raise ValueError(
                    f"The class names given have {names[place]!r} in the place of {own[place]!r} "
                    f"of {run.classes}; leave --classes out, or give them in that file's order."
                )
    return names


def _check_classifier(model, file):
    if is_detector(model):
        raise ValueError(f"{file} is a detector; a classifier is wanted here.")
    shape = model.input_shape
    if len(shape or ()) != 4 or None in shape[1:] or shape[-1] != 3:
        raise ValueError(f"{file} takes {shape}, not RGB images (None, H, W, 3) of one size.")
    activation = getattr(model.layers[-1], "activation", None)
    ends_in_rows = len(model.output_shape) == 2 and isinstance(model.output_shape[-1], int)
    if not ends_in_rows or activation not in (None, keras.activations.linear):
        raise ValueError(f"{file} does not end in logits (None, classes).")
    if _gives_probabilities(model):
        raise ValueError(
            f"{file} gives probabilities, not logits; save it with classifier_activation=None."
        )


def _gives_probabilities(model):
    """Whether a classifier ends in a softmax, by its outputs.

    A softmax may be an operation, or lie in a model within the model, where no layer shows it.
    """
    # Several images, as logits may sum to one by chance.
    images = (np.full((1, *model.input_shape[1:]), value, "float32") for value in (-2, 0, 2))
    outputs = (ops.cast(model(image, training=False), "float32") for image in images)
    return all(
        (output >= 0).all() and abs(output.sum() - 1) < 0.01  # of float16 or bfloat16 too
        for output in map(ops.convert_to_numpy, outputs)
    )
