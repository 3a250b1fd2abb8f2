"""Keras' own files: `.keras`, which describes its model, and `.weights.h5`, which does not."""

import json
import zipfile

import h5py
import keras

import pit_keras.models  # noqa: F401  registers the layers that a saved model is made of
from pit_keras.weights.adaptation import patch_grid_of
from pit_keras.weights.recognition import Checkpoint, Misfit

# Keras has no error of its own for a damaged file: what it ran into comes through.
_DAMAGED = (ValueError, OSError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile)


def read_keras(path):
    """The checkpoint that a `.keras` file holds.

    Raises:
        ValueError: If the file is damaged, or holds values that are not finite.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is damaged, or no Keras model at all.")
    try:
        model = keras.models.load_model(path, compile=False)
        grid = patch_grid_of(model)
    except _DAMAGED as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path} cannot be loaded as a Keras model: {reason}") from error
    values = {v.path: v.numpy() for v in model.weights}
    checkpoint = Checkpoint(str(path), values, grid=grid)
    checkpoint.check_finite()
    return checkpoint


def layer_names(path):
    """Names of the layers that a `.keras` file describes; none of any other file."""
    if not zipfile.is_zipfile(path):
        return set()
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            return set()
        description = json.loads(archive.read("config.json"))
    layers = description.get("config", {}).get("layers", ())
    return {layer["name"] for layer in layers if "name" in layer}


def load_h5(model, path):
    """Loads a `.weights.h5` file into a model of exactly its shape.

    Raises:
        Misfit: If it does not fit, has more in it, or is damaged. The model is then unchanged.
    """
    if not h5py.is_hdf5(path):
        raise Misfit(f"{path} is damaged, or no HDF5 file at all.")
    before = model.get_weights()
    try:
        model.load_weights(path)
        _check_h5_left_over(model, path)
        values = {v.path: v.numpy() for v in model.weights}
        Checkpoint(str(path), values).check_finite()
    except _DAMAGED as error:
        model.set_weights(before)  # Keras stops halfway
        reason = str(error).strip().split("\n")[0]  # Keras' own text has a paragraph for each layer
        raise Misfit(f"The weights in {path} do not fit {model.name}: {reason}") from error


def _check_h5_left_over(model, path):
    """Keras loads what it finds a place for and ignores the rest."""
    stored = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: stored.append(name) if hasattr(item, "shape") else None)
    # The states of random generators belong to a model's dropout, not to its weights.
    stored = [name for name in stored if "seed_generator" not in name and "/vars/" in name]
    if len(stored) != len(model.weights):
        raise ValueError(f"it holds {len(stored)} tensors and the model has {len(model.weights)}.")
