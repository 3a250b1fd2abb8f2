"""Pooling-based Vision Transformer (PiT, ICCV 2021) for Keras 3 and TensorFlow."""

from pit_keras.models import (
    attention_maps,
    create_model,
    list_models,
    pre_logits,
    stage_features,
)
from pit_keras.weights import load_pytorch_weights

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "attention_maps",
    "create_model",
    "list_models",
    "load_pytorch_weights",
    "pre_logits",
    "stage_features",
]
