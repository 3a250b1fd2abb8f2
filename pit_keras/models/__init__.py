"""PiT and the networks it is compared with, as functional Keras models on any backend."""

from pit_keras.models.classifier import stage_features, two_headed
from pit_keras.models.layers import tracing_for_xla
from pit_keras.models.registry import create_model, list_models, variant_of

__all__ = [
    "create_model",
    "list_models",
    "stage_features",
    "tracing_for_xla",
    "two_headed",
    "variant_of",
]
