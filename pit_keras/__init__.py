"""Pooling-based Vision Transformer (PiT, ICCV 2021) for Keras 3 and TensorFlow."""

import importlib
import os
import platform
import sys

from pit_keras import registration

__version__ = "0.1.0"

_PUBLIC = {
    "Distiller": "pit_keras.distiller",
    "attention_maps": "pit_keras.models.features",
    "create_model": "pit_keras.create",
    "decode_predictions": "pit_keras.imagenet",
    "list_models": "pit_keras.config.model_names",
    "load_pytorch_weights": "pit_keras.weights.pytorch",
    "load_weights": "pit_keras.weights.loading",
    "pre_logits": "pit_keras.models.features",
    "preprocess_input": "pit_keras.imagenet",
    "recipe": "pit_keras.config.recipes",
    "stage_features": "pit_keras.models.features",
    "two_headed": "pit_keras.models.classifier",
}
_MODULES = ("data", "losses", "optimizers", "schedules")

__all__ = ["__version__", *_PUBLIC, *_MODULES]

registration.with_keras()
if platform.machine() in ("x86_64", "AMD64") and "tensorflow" not in sys.modules:
    # TensorFlow reads it when it is imported. By itself it leaves oneDNN's kernels to processors
    # with AVX-512's VNNI; on another one PiT-S took a third longer without (docs/performance.md).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def __getattr__(name):
    """Imports what is public where it is first used: Keras and its backend take seconds."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__():
    return sorted({*globals(), *__all__})
