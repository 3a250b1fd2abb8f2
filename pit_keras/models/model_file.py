"""The model in a `.keras` file."""

import zipfile

import keras


def read_model(path):
    """The uncompiled model of a `.keras` file; a ValueError of one line if it cannot be loaded."""
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} cannot be loaded as a Keras model: it is cut short, or not a .keras file."
        )
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras has no error of its own for a damaged file
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path} cannot be loaded as a Keras model: {reason}") from error
