"""The teacher of distillation: any model that has the data's classes, frozen, in inference mode.

A teacher is a plain function, so nothing tracks its weights: they are neither trained, nor saved
with the student, nor part of a checkpoint.
"""

import pathlib
import warnings

import keras
import tensorflow as tf
from keras import ops

from pit_keras.create import create_model
from pit_keras.evaluation.classification import check_classes
from pit_keras.models import list_models
from pit_keras.models.dtype_policy import with_dtype_policy
from pit_keras.models.resampling import interpolation_matrix
from pit_keras.runs.run_folder import RunFolder
from pit_keras.runs.trained_model import load_trained_model
from pit_keras.runs.versioned_folder import find_saved_model
from pit_keras.weights.loading import NewHeadsWarning


def load_teacher(config, source):
    """Loads the teacher that a configuration names.

    Call it under the student's strategy and dtype policy, which the teacher shares (a SavedModel
    keeps the precision that it was exported with).

    Args:
        config: A `Config` with `distillation.teacher`.
        source: The data; it has the classes that the teacher must have.

    Returns:
        A function from normalised images (B, H, W, 3) to logits (B, classes), float32. Where the
        teacher takes another size than the student, it resizes the images, and says so now.

    Raises:
        ValueError: If there is no such teacher, its classes are not the data's, or its images are
            normalised otherwise.
        OSError: If its weights are missing.
    """
    teacher, weights = config.distillation.teacher, config.distillation.teacher_weights
    path = pathlib.Path(teacher)
    if teacher not in list_models() and weights != "imagenet":
        raise ValueError(
            f"distillation.teacher_weights is {weights!r}, which is for a teacher by name; "
            f"{teacher} has its own."
        )
    saved_model = find_saved_model(path)
    if saved_model is not None:
        size, logits = _saved_model(saved_model, len(source.class_names))
    elif path.is_dir() or path.suffix == ".keras":
        size, logits = _trained_model(path, config, source)
    elif teacher in list_models():
        return _in_inference(_named(config, source))
    else:
        raise ValueError(
            f"The teacher {teacher!r} is neither a model's name (see `pit-keras models`) nor a "
            "run folder, a .keras file or a SavedModel folder."
        )
    return _resizing(logits, size, config.data.image_size, teacher)


def _in_inference(model):
    model.trainable = False
    return lambda images: model(images, training=False)


def _named(config, source):
    """A network of `create_model`, built for the student's image size."""
    name, weights = config.distillation.teacher, config.distillation.teacher_weights
    with warnings.catch_warnings():
        warnings.simplefilter("error", NewHeadsWarning)
        try:
            return create_model(
                name,
                classes=len(source.class_names),
                input_shape=(*config.data.image_size, 3),
                weights=weights,
            )
        except NewHeadsWarning as error:
            raise ValueError(
                f"The teacher {name} with the weights {weights} does not know the "
                f"{len(source.class_names)} classes of {source.name}; train one on this data and "
                f"give its run folder, --teacher=PATH. ({error})"
            ) from None


def _trained_model(path, config, source):
    trained = load_trained_model(path, class_names=_names_beside(path, source))
    try:
        check_classes(trained.class_names, source)
    except ValueError as error:
        difference = str(error).partition("; give its names")[0].rstrip(".")
        raise ValueError(
            f"The teacher {path} was trained on other classes: {difference}; train one on these."
        ) from None
    for field in ("mean", "std"):
        theirs, ours = getattr(trained.data, field), getattr(config.data, field)
        if theirs != ours:
            raise ValueError(
                f"The teacher {path} takes images normalised with {field} {theirs}; the student's "
                f"have data.{field} {ours}, and both see the same images."
            )
    model = with_dtype_policy(trained.model, keras.config.dtype_policy().name)
    return trained.data.image_size, _in_inference(model)


def _names_beside(path, source):
    """The data's class names for a lone file, which tells no others; None for a run folder's."""
    lone = path.suffix == ".keras" and not RunFolder(path.parent).config.exists()
    return source.class_names if lone else None


def _saved_model(path, classes):
    """A SavedModel that `Model.export` wrote; (image size or None for any, function)."""
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures.get("serving_default")
    if signature is None:
        raise ValueError(f"The SavedModel {path} has no signature 'serving_default'.")
    inputs = signature.structured_input_signature[1]
    outputs = signature.structured_outputs
    image = next(iter(inputs.values()))
    if len(inputs) != 1 or not image.dtype.is_floating or image.shape.rank != 4:
        raise ValueError(
            f"The SavedModel {path} takes {_specs(inputs)}, not normalised images, float (B, H, W, "
            "3); one that `pit-keras export` wrote has its own preprocessing: give its run folder."
        )
    logits = next(iter(outputs.values()))
    if len(outputs) != 1 or logits.shape.rank != 2 or logits.shape[-1] != classes:
        raise ValueError(
            f"The SavedModel {path} gives {_specs(outputs)}, not the logits of the data's "
            f"{classes} classes."
        )
    size = tuple(image.shape[1:3])
    (argument,), (result,) = inputs, outputs

    def teach(images):
        values = loaded.signatures["serving_default"](**{argument: ops.cast(images, image.dtype)})
        return ops.cast(values[result], "float32")

    return (None if None in size else size), teach


def _specs(specs):
    return ", ".join(f"{name} {spec.dtype.name} {spec.shape}" for name, spec in specs.items())


def _resizing(logits, size, image_size, teacher):
    """A teacher that sees the student's images at its own size; bicubic, with antialiasing."""
    if size is None or tuple(size) == tuple(image_size):
        return logits
    (height, width), (new_height, new_width) = image_size, size
    print(
        f"The teacher {teacher} takes images of {new_height} x {new_width} pixels; the student's "
        f"{height} x {width} are resized for it."
    )
    rows = ops.convert_to_numpy(interpolation_matrix(height, new_height))
    columns = ops.convert_to_numpy(interpolation_matrix(width, new_width))
    # (B, h, w, 3) -> (B, H, W, 3)
    return lambda images: logits(ops.einsum("yh,bhwc,xw->byxc", rows, images, columns))
