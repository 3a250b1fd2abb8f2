"""The model in a `.keras` file."""

import zipfile

import keras

# Keras has no error of its own for a damaged file: what it ran into comes through.
DAMAGED_FILE_ERRORS = (
    ValueError,
    OSError,
    TypeError,
    KeyError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
)


def read_model(path):
    """The uncompiled model of a `.keras` file; a ValueError of one line if it cannot be loaded."""
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} cannot be loaded as a Keras model: it is cut short, or not a .keras file."
        )
    try:
        return keras.models.load_model(path, compile=False)
    except DAMAGED_FILE_ERRORS as error:
        raise ValueError(
            f"{path} cannot be loaded as a Keras model: {first_line(error)}"
        ) from error


def first_line(error):
    """The first line of an error; Keras' own have a paragraph for each layer."""
    return str(error).strip().split("\n")[0]
