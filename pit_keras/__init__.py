"""Pooling-based Vision Transformer (PiT, ICCV 2021) for Keras 3 and TensorFlow."""

import importlib
import sys

from pit_keras import registration

__version__ = "0.1.0"

_PUBLIC = {
    "attention_maps": "pit_keras.models.features",
    "create_model": "pit_keras.create",
    "list_models": "pit_keras.models.registry",
    "load_pytorch_weights": "pit_keras.weights.pytorch",
    "pre_logits": "pit_keras.models.features",
    "stage_features": "pit_keras.models.features",
}

__all__ = ["__version__", *_PUBLIC]

registration.with_keras()


def __getattr__(name):
    """Imports what is public where it is first used: Keras and its backend take seconds."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__():
    return sorted({*globals(), *_PUBLIC})
