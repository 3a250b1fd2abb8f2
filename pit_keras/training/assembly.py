"""What a configuration describes, built: model, optimizer, and whether XLA compiles them."""

import contextlib
import warnings

import keras
import tensorflow as tf

from pit_keras.models import create_model
from pit_keras.models.layers import TransformerBlock
from pit_keras.training.fine_tuning import learning_rate_scales
from pit_keras.training.optimizer import AdamP, weight_decay_exclusions
from pit_keras.training.schedule import WarmupCosine, scaled_learning_rate

# Fields of `ModelConfig` that replace those of the variant's row.
VARIANT_FIELDS = (
    "patch_size",
    "stride",
    "head_dim",
    "depths",
    "heads",
    "base_width",
    "stem_stride",
)


def uses_xla(jit, precision, model):
    """Whether XLA compiles the step: `jit` is "on", "off", or "auto" for the measured choice.

    On a processor TensorFlow's own kernels are faster, but for a transformer in float16
    (`benchmarks/results/training_step.csv`). On a graphics card "auto" compiles everything, which
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
        weights: What the model starts from, see `create_model`.
    """
    overrides = {
        name: getattr(config.model, name)
        for name in VARIANT_FIELDS
        if getattr(config.model, name) is not None
    }
    with _printed_warnings():
        return create_model(
            config.model.name,
            classes=len(source.class_names),
            input_shape=(*config.data.image_size, 3),
            weights=weights,
            drop_rate=config.model.drop_rate,
            attention_drop_rate=config.model.attention_drop_rate,
            drop_path_rate=config.model.drop_path_rate,
            **overrides,
        )


@contextlib.contextmanager
def _printed_warnings():
    """Prints as plain sentences what is said of weights that were adapted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        print(warning.message)


def optimizer_of(config, model, steps):
    """AdamP with warm-up and cosine, built for the model; loss scaling for float16."""
    settings = config.optimizer
    schedule = WarmupCosine(
        base=scaled_learning_rate(settings.learning_rate, config.training.images_of_update),
        steps=config.training.epochs * steps,
        warmup_steps=round(settings.warmup_epochs * steps),
        warmup_start=settings.warmup_learning_rate,
        minimum=settings.min_learning_rate,
    )
    optimizer = AdamP(
        schedule,
        beta_1=settings.beta_1,
        beta_2=settings.beta_2,
        epsilon=settings.epsilon,
        weight_decay=settings.weight_decay,
        delta=settings.delta,
        wd_ratio=settings.wd_ratio,
    )
    optimizer.exclude_from_weight_decay(var_list=weight_decay_exclusions(model.trainable_variables))
    if settings.layer_decay < 1:
        optimizer.scale_learning_rates(learning_rate_scales(model, settings.layer_decay))
    if config.training.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer
