"""Weights from the Hugging Face Hub, from Keras' own files and from PyTorch checkpoints."""

from pit_keras.weights.loading import load_weights
from pit_keras.weights.pytorch import load_pytorch_weights

__all__ = ["load_pytorch_weights", "load_weights"]
