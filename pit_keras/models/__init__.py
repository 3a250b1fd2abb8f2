"""PiT and the networks it is compared with, as functional Keras models on any backend."""

from pit_keras.models.classifier import two_headed
from pit_keras.models.detr import backbone_layers, is_detector, masked_detector
from pit_keras.models.features import attention_maps, pre_logits, stage_features
from pit_keras.models.layers import check_can_recompute
from pit_keras.models.registry import create_model, list_models, variant_of
from pit_keras.models.tracing import recomputing_blocks, tracing_for_xla

__all__ = [
    "attention_maps",
    "backbone_layers",
    "check_can_recompute",
    "create_model",
    "is_detector",
    "list_models",
    "masked_detector",
    "pre_logits",
    "recomputing_blocks",
    "stage_features",
    "tracing_for_xla",
    "two_headed",
    "variant_of",
]
