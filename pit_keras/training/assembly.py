"""Builds what a configuration describes: the model, the optimizer, and whether XLA compiles."""

import os
import warnings

import keras
import numpy as np
import tensorflow as tf

from pit_keras.config.model_names import DETECTOR_PREFIX
from pit_keras.create import create_model
from pit_keras.data.class_matching import comparable
from pit_keras.models import variant_of
from pit_keras.models.attention import TransformerBlock
from pit_keras.models.detr import Detr
from pit_keras.models.features import APPLICATION_HEADS, HEADS
from pit_keras.models.keras_applications import Application
from pit_keras.optimizers import AdamP, AdamW
from pit_keras.runs.run_folder import find_model
from pit_keras.schedules import WarmUpCosine, WarmUpDrop, scaled_learning_rate
from pit_keras.training.fine_tuning import trains_blocks
from pit_keras.weights.loading import check_weights_file
from pit_keras.weights.released import IMAGENET, fetch, from_cache, release_of


def uses_xla(jit, precision, model):
    """Whether XLA compiles the step: `jit` is "on", "off", or "auto" for the measured choice.

    On a CPU, TensorFlow's own kernels are faster except for a transformer in float16
    (`results/training_step.csv`). On a GPU "auto" compiles everything, which is not measured.
    """
    if jit != "auto":
        return jit == "on"
    if tf.config.list_logical_devices("GPU"):
        return True
    has_blocks = any(isinstance(layer, TransformerBlock) for layer in model.layers)
    return has_blocks and precision == "mixed_float16"


def check_weights(config):
    """Raises an error for weights that do not exist, before any data or network is there."""
    weights, row = config.model.weights, variant_of(config.model.name)
    if weights == IMAGENET:
        if not isinstance(row, (Application, Detr)):
            release_of(config.model.name)
    elif weights is not None and not os.path.isdir(weights):  # a run folder
        check_weights_file(weights)


def sizes_of_weights(config, folder):
    """Fields of the model that are not set, as the run has them that its weights come from.

    `folder` is that of the run itself: once it is begun, its weights may be gone.
    """
    weights, model = config.model.weights, config.model
    if weights in (None, IMAGENET):
        return {}
    run = folder if folder.begun or folder.finished else None
    if run is None and (os.path.isdir(weights) or _is_keras_file(weights)):
        run = find_model(weights)[1]
    try:
        origin = run.read_config().model if run is not None else model
    except (ValueError, OSError):  # the sizes have to be given then
        return {}
    if (run is folder and origin.weights != weights) or _kin(origin.name) != _kin(model.name):
        return {}
    return {name: size for name, size in origin.overrides.items() if name not in model.overrides}


def _kin(name):
    """What a classifier, its distilled form and a detector on it have in common."""
    return name.removeprefix(DETECTOR_PREFIX).removesuffix("_distilled")


def weights_in_reach(name):
    """What `photos` starts from: "imagenet", or with a message None where that cannot be had."""
    if isinstance(variant_of(name), Application):  # Keras fetches them itself
        return IMAGENET
    try:
        if from_cache(name) is None:
            fetch(name)
    except (ImportError, OSError, ValueError) as error:
        print(f"{str(error).rstrip('.')}. Without them it is trained from random weights.")
        return None
    return IMAGENET


def model_of(config, source, weights=None):
    """The model of a configuration, with the classes of the data.

    `weights` are those of `create_model`, or a run folder.
    """
    settings, run = config.model, None
    if weights and (os.path.isdir(weights) or _is_keras_file(weights)):
        file, run = find_model(weights)
        weights = str(file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model = create_model(
            settings.name,
            classes=len(source.class_names),
            weights=weights,
            drop_rate=settings.drop_rate,
            attention_drop_rate=settings.attention_drop_rate,
            drop_path_rate=settings.drop_path_rate,
            **_sizes(config),
            **settings.overrides,
        )
    for warning in caught:  # adapted weights; without Python's file and line
        print(warning.message)
    if run is not None:
        _match_heads(model, run, comparable(source.class_names))
    return model


def _is_keras_file(path):
    return path.endswith(".keras") and os.path.isfile(path)


def _match_heads(model, run, names):
    """Gives each class what a run's heads know of the class of its name; new ones begin anew."""
    # Another number of classes has its heads replaced as a whole.
    known = comparable(run.read_class_names(len(names)))
    if known == names or len(known) != len(names):
        return
    columns = [known.index(name) if name in known else -1 for name in names]
    for layer in model.layers:
        if layer.name in (*HEADS, *APPLICATION_HEADS, "class_head"):
            kernel, bias = layer.get_weights()
            chosen = np.array([*columns, *range(len(names), bias.size)])  # "no object" stays
            fresh = [layer.kernel_initializer(kernel.shape), layer.bias_initializer(bias.shape)]
            values = zip(fresh, (kernel[:, chosen], bias[chosen]), strict=True)
            layer.set_weights([np.where(chosen < 0, new, old) for new, old in values])
    words = f"{columns.count(-1)} of the {len(names)} begin anew"
    print(f"The heads of {run.path} are matched by the names of the classes; {words}.")


def _sizes(config):
    """A detector takes images of any size, with position embeddings for the largest."""
    size = config.data.image_size
    if not config.model.is_detector:
        return {"input_shape": (*size, 3)}
    backbone = variant_of(variant_of(config.model.name).backbone)
    base = {"base_size": size} if hasattr(backbone, "base_size") else {}
    return {"input_shape": (None, None, 3), **base}


def optimizer_of(config, model, steps, scales=()):
    """The optimizer with its schedule, built for the model; with loss scaling for float16.

    There are `steps` updates per epoch. `scales` are those of `AdamP.scale_learning_rates`.
    """
    settings = config.optimizer
    kind = AdamW
    names = ["beta_1", "beta_2", "epsilon", "weight_decay", "decay_all", "layer_decay"]
    if settings.name == "adamp":
        kind, names = AdamP, [*names, "delta", "wd_ratio"]
    options = {name: getattr(settings, name) for name in names}
    if options["layer_decay"] < 1 and not trains_blocks(model):
        options["layer_decay"] = 1.0  # the top alone learns
    optimizer = kind(schedule_of(config, steps), **options)
    optimizer.scale_learning_rates(scales)
    if config.training.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def schedule_of(config, steps):
    """The learning rate over a run of `steps` updates per epoch."""
    settings = config.optimizer
    shared = {
        "peak": scaled_learning_rate(
            settings.learning_rate, config.training.images_of_update, settings.scaled_from
        ),
        "steps": config.training.epochs * steps,
        "warmup_steps": round(settings.warmup_epochs * steps),
        "start": settings.warmup_learning_rate,
    }
    if settings.schedule == "drop":
        return WarmUpDrop(**shared, drop_at=config.detection.drop_at)
    return WarmUpCosine(**shared, minimum=settings.min_learning_rate)
