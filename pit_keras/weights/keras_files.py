"""Keras' own files: `.keras`, which describes its model, and `.weights.h5`, which does not."""

import dataclasses
import json
import zipfile

import h5py

from pit_keras.models.serialization import read_model
from pit_keras.weights.adaptation import checkpoint_of
from pit_keras.weights.recognition import Misfit


def read_keras(path):
    """The `Checkpoint` in a `.keras` file."""
    return _checked(read_model(path), path)


def _checked(model, path):
    checkpoint = checkpoint_of(model, str(path))
    values = {name: variable.numpy() for name, variable in checkpoint.values.items()}
    checkpoint = dataclasses.replace(checkpoint, values=values)
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
    """Loads a `.weights.h5` file into a model of exactly its shape, all or nothing."""
    if not h5py.is_hdf5(path):
        raise Misfit(f"{path} is damaged, or no HDF5 file at all.")
    before = model.get_weights()
    try:
        model.load_weights(path)
        _check_h5_left_over(model, path)
        _checked(model, path)
    except Exception as error:  # Keras has no error of its own for a damaged file
        model.set_weights(before)  # Keras stops halfway
        reason = str(error).strip().split("\n")[0]  # Keras' text has a paragraph for each layer
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
