"""Weights from the Hugging Face Hub, from Keras' own files and from PyTorch checkpoints.

Only this package knows PyTorch's names; it fits weights to a model and builds none.
"""

from pit_keras.weights.loading import load_weights
from pit_keras.weights.pytorch import load_pytorch_weights

__all__ = ["load_pytorch_weights", "load_weights"]
