"""The teacher of distillation: any model with the data's classes, frozen, in inference mode.

A teacher is a plain function, so nothing tracks its weights: they are neither trained, nor saved
with the student, nor part of a checkpoint.
"""

import pathlib
import warnings

import keras
from keras import ops

from pit_keras.config.model_names import list_models
from pit_keras.create import create_model
from pit_keras.data.class_matching import labels_in
from pit_keras.imagenet import CLASSES
from pit_keras.models.inference import with_dtype_policy
from pit_keras.models.resampling import interpolation_matrix
from pit_keras.runs.run_folder import find_model
from pit_keras.runs.trained_model import load_trained_model
from pit_keras.runs.versioned_folder import find_saved_model, load_saved_model_from
from pit_keras.weights.loading import NewHeadsWarning, check_weights_file
from pit_keras.weights.released import IMAGENET


def check_teacher(config):
    """Raises an error for a teacher that is not there, before any data or network is."""
    teacher, weights = config.distillation.teacher, config.distillation.teacher_weights
    if teacher not in list_models():
        if weights != IMAGENET:
            raise ValueError(
                f"distillation.teacher_weights={weights}: {teacher} has its own weights."
            )
        path = pathlib.Path(teacher)
        if find_saved_model(path) is None and not path.is_dir() and path.suffix != ".keras":
            raise ValueError(
                f"The teacher {teacher!r} is neither a model's name (see `pit-keras models`) nor a "
                "run folder, a .keras file or a SavedModel folder."
            )
        if not path.exists():
            raise FileNotFoundError(f"The teacher {teacher} does not exist.")
    elif weights != IMAGENET:
        check_weights_file(weights)


def load_teacher(config, source):
    """A configuration's teacher: a function from the student's images (B, H, W, 3) to its logits.

    They are float32 (B, classes). Call it under the student's strategy and dtype policy, which the
    teacher shares (a SavedModel keeps the precision of its export).
    """
    check_teacher(config)
    teacher = config.distillation.teacher
    if teacher in list_models():
        return _in_inference(_named(config, source))
    path = pathlib.Path(teacher)
    saved_model = find_saved_model(path)
    if saved_model is not None:
        size, logits = _saved_model(saved_model, len(source.class_names))
    else:
        size, logits = _trained_model(path, config, source)
    return _resizing(logits, size, config.data.image_size)


def _in_inference(model):
    model.trainable = False
    return lambda images: model(images, training=False)


def _named(config, source):
    """A network of `create_model`, built for the student's image size."""
    name, weights = config.distillation.teacher, config.distillation.teacher_weights
    lacking = ValueError(
        f"The teacher {name} lacks weights for the {len(source.class_names)} classes of "
        f"{source.name}; train one on this data and give its run folder, --teacher=PATH."
    )
    if weights == IMAGENET and len(source.class_names) != CLASSES:
        raise lacking  # before they are fetched
    with warnings.catch_warnings():
        warnings.simplefilter("error", NewHeadsWarning)
        try:
            return create_model(
                name,
                classes=len(source.class_names),
                input_shape=(*config.data.image_size, 3),
                weights=weights,
            )
        except NewHeadsWarning:
            raise lacking from None


def _trained_model(path, config, source):
    # A .keras file on its own has no class names: only their number can be compared.
    is_alone = find_model(path)[1] is None
    trained = load_trained_model(path, class_names=source.class_names if is_alone else None)
    labels = labels_in(trained.class_names, source, f"the teacher {path}")
    for field in ("mean", "std"):
        theirs, ours = getattr(trained.data, field), getattr(config.data, field)
        if theirs != ours:
            raise ValueError(f"The teacher {path} has data.{field}={theirs}, the student {ours}.")
    model = with_dtype_policy(trained.model, keras.config.dtype_policy().name)
    logits = _in_inference(model)
    if labels == list(range(len(trained.class_names))):
        return trained.data.image_size, logits
    return trained.data.image_size, lambda images: ops.take(logits(images), labels, axis=-1)


def _saved_model(path, classes):
    """A SavedModel that `Model.export` wrote; (image size or None for any, function)."""
    print(f"The teacher {path} is a SavedModel, a program that runs here with your rights.")
    loaded = load_saved_model_from(path)
    signature = loaded.signatures.get("serving_default")
    if signature is None:
        raise ValueError(f"The SavedModel {path} has no signature 'serving_default'.")
    inputs = signature.structured_input_signature[1]
    outputs = signature.structured_outputs
    image = next(iter(inputs.values()))
    if len(inputs) != 1 or not image.dtype.is_floating or image.shape.rank != 4:
        raise ValueError(
            f"{path} takes {_specs(inputs)}, not normalised images, float (B, H, W, 3). If "
            "`pit-keras export` wrote it, give its run folder instead."
        )
    logits = next(iter(outputs.values()))
    if len(outputs) != 1 or logits.shape.rank != 2 or logits.shape[-1] != classes:
        raise ValueError(f"{path} returns {_specs(outputs)}, not logits of {classes} classes.")
    size = tuple(image.shape[1:3])
    (argument,), (result,) = inputs, outputs

    def teach(images):
        values = loaded.signatures["serving_default"](**{argument: ops.cast(images, image.dtype)})
        return ops.cast(values[result], "float32")

    return (None if None in size else size), teach


def _specs(specs):
    return ", ".join(f"{name} {spec.dtype.name} {spec.shape}" for name, spec in specs.items())


def _resizing(logits, size, image_size):
    """Resizes the student's images to the teacher's size; bicubic, with antialiasing."""
    if size is None or tuple(size) == tuple(image_size):
        return logits
    print("The teacher's images are resized from {} x {} to {} x {}.".format(*image_size, *size))
    rows, columns = (
        ops.convert_to_numpy(interpolation_matrix(old, new))
        for old, new in zip(image_size, size, strict=True)
    )
    # (B, h, w, 3) -> (B, H, W, 3)
    return lambda images: logits(ops.einsum("yh,bhwc,xw->byxc", rows, images, columns))
