"""PiT and the networks it is compared with, as functional Keras models on any backend."""

from pit_keras.models.classifier import two_headed
from pit_keras.models.features import attention_maps, pre_logits, stage_features
from pit_keras.models.layers import tracing_for_xla
from pit_keras.models.registry import create_model, list_models, variant_of

__all__ = [
    "attention_maps",
    "create_model",
    "list_models",
    "pre_logits",
    "stage_features",
    "tracing_for_xla",
    "two_headed",
    "variant_of",
]
