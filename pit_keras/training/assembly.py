"""What a configuration describes, built: model, optimizer, and whether XLA compiles them."""

import contextlib
import os
import warnings

import keras
import tensorflow as tf

from pit_keras.create import create_model
from pit_keras.models import variant_of
from pit_keras.models.attention import TransformerBlock
from pit_keras.runs.run_folder import RunFolder
from pit_keras.training.optimizer import AdamP, AdamW, weight_decay_exclusions
from pit_keras.training.schedule import WarmupCosine, WarmupDrop, scaled_learning_rate


def uses_xla(jit, precision, model):
    """Whether XLA compiles the step: `jit` is "on", "off", or "auto" for the measured choice.

    On a processor TensorFlow's own kernels are faster, but for a transformer in float16
    (`results/training_step.csv`). On a graphics card "auto" compiles everything, which
    has not been measured.
    """
    if jit != "auto":
        return jit == "on"
    if tf.config.list_logical_devices("GPU"):
        return True
    has_blocks = any(isinstance(layer, TransformerBlock) for layer in model.layers)
    return has_blocks and precision == "mixed_float16"


def model_of(config, source, weights=None):
    """The model that a configuration describes, with as many classes as the data has.

    Args:
        config: A `Config`.
        source: The data.
        weights: What the model starts from, see `create_model`; or a run folder.
    """
    with _printed_warnings():
        return create_model(
            config.model.name,
            classes=len(source.class_names),
            weights=weights and _weights_file(weights),
            drop_rate=config.model.drop_rate,
            attention_drop_rate=config.model.attention_drop_rate,
            drop_path_rate=config.model.drop_path_rate,
            **_sizes(config),
            **config.model.overrides,
        )


def _sizes(config):
    """The size of images; a detector takes all, with position embeddings for the largest ones."""
    size = config.data.image_size
    if not config.model.is_detector:
        return {"input_shape": (*size, 3)}
    backbone = variant_of(variant_of(config.model.name).backbone)
    base = {"base_size": size} if hasattr(backbone, "base_size") else {}
    return {"input_shape": (None, None, 3), **base}


def _weights_file(weights):
    """The file of weights; of a run folder its model."""
    return str(RunFolder(weights).model) if os.path.isdir(weights) else weights


@contextlib.contextmanager
def _printed_warnings():
    """Prints as plain sentences what is said of weights that were adapted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        print(warning.message)


def optimizer_of(config, model, steps, scales=()):
    """The optimizer with its schedule, built for the model; loss scaling for float16.

    Args:
        config: A `Config`.
        model: What is trained.
        steps: Updates of an epoch.
        scales: Pairs (variable, factor), see `AdamP.scale_learning_rates`.
    """
    settings = config.optimizer
    shared = {
        "beta_1": settings.beta_1,
        "beta_2": settings.beta_2,
        "epsilon": settings.epsilon,
        "weight_decay": settings.weight_decay,
    }
    if settings.name == "adamw":
        optimizer = AdamW(schedule_of(config, steps), **shared)
    else:
        projection = {"delta": settings.delta, "wd_ratio": settings.wd_ratio}
        optimizer = AdamP(schedule_of(config, steps), **shared, **projection)
    if not settings.decay_all:
        spared = weight_decay_exclusions(model.trainable_variables)
        optimizer.exclude_from_weight_decay(var_list=spared)
    optimizer.scale_learning_rates(scales)
    if config.training.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def schedule_of(config, steps):
    """The learning rate over a run's updates, of which an epoch has so many."""
    settings = config.optimizer
    shared = {
        "base": scaled_learning_rate(
            settings.learning_rate, config.training.images_of_update, settings.scaled_from
        ),
        "steps": config.training.epochs * steps,
        "warmup_steps": round(settings.warmup_epochs * steps),
        "warmup_start": settings.warmup_learning_rate,
    }
    if settings.schedule == "drop":
        return WarmupDrop(**shared, drop_at=config.detection.drop_at)
    return WarmupCosine(**shared, minimum=settings.min_learning_rate)
