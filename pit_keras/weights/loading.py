"""One door for weight files of every format."""

import pathlib
import zipfile

from pit_keras.weights.pytorch import load_pytorch_weights

KERAS_SUFFIXES = (".keras", ".h5")
PYTORCH_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def load_weights(model, path):
    """Loads a weights file into a model: `.keras`, `.weights.h5`, `.safetensors` or `.pth`.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If the format is unknown, the file damaged, or the weights do not fit the model.
            The model is then unchanged.
    """
    path = pathlib.Path(path)
    if path.suffix not in KERAS_SUFFIXES + PYTORCH_SUFFIXES:
        raise ValueError(
            f"Unknown weights {str(path)!r}; give None or the path of a file that ends in .keras, "
            ".weights.h5, .safetensors or .pth."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file {path}.")
    if path.suffix in PYTORCH_SUFFIXES:
        load_pytorch_weights(model, path)
        return
    before = model.get_weights()
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        model.set_weights(before)  # Keras stops halfway
        raise ValueError(f"The weights in {path} do not fit {model.name}: {error}") from error
