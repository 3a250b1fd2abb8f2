"""Pooling-based Vision Transformer (PiT, ICCV 2021) for Keras 3 and TensorFlow."""

import os
import sys

if os.path.basename(sys.argv[0] if sys.argv else "") == "pit-keras":
    # TensorFlow reads this when it is imported, which the next lines do. In the command's output,
    # its remarks on every conversion would hide what the command has to say.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import keras  # noqa: F401 - to see whether its backend is there
    except (ValueError, ImportError) as error:
        sys.exit(
            f"error: Keras cannot use its backend ({error}); set KERAS_BACKEND to tensorflow, jax "
            "or torch, which has to be installed."
        )

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
