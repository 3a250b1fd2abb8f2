"""The networks as functional Keras models on any backend: layers, families, features, cost.

Nothing here imports TensorFlow; weights are loaded by `create.py` and `weights`.
"""

from pit_keras.models.attention import check_can_recompute
from pit_keras.models.classifier import two_headed
from pit_keras.models.detr import backbone_layers, is_detector, masked_detector
from pit_keras.models.execution import recomputing_blocks
from pit_keras.models.features import attention_maps, pre_logits, stage_features
from pit_keras.models.fit_checks import Classifier
from pit_keras.models.registry import build_model, variant_of

__all__ = [
    "Classifier",
    "attention_maps",
    "backbone_layers",
    "build_model",
    "check_can_recompute",
    "is_detector",
    "masked_detector",
    "pre_logits",
    "recomputing_blocks",
    "stage_features",
    "two_headed",
    "variant_of",
]
