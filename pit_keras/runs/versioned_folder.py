"""Where a SavedModel lies: TensorFlow Serving looks for numbered versions in a model's folder."""

import pathlib
import tempfile

VERSION = 1  # of exports here; Serving takes the highest that it finds
_FILE = "saved_model.pb"


def find_saved_model(path):
    """The folder of the SavedModel at a path: itself, or its highest version; None without one."""
    path = pathlib.Path(path)
    if (path / _FILE).is_file():
        return path
    versions = [file.parent for file in path.glob(f"*/{_FILE}") if file.parent.name.isdecimal()]
    return max(versions, key=lambda folder: int(folder.name), default=None)


def load_saved_model_from(path):
    """What `tf.saved_model.load` gives, from any path: TensorFlow takes some for patterns."""
    import tensorflow as tf

    if not set("*?[]\\") & set(str(path)):
        return tf.saved_model.load(str(path))
    with tempfile.TemporaryDirectory() as folder:
        link = pathlib.Path(folder, "saved_model")
        link.symlink_to(pathlib.Path(path).resolve(), target_is_directory=True)
        return tf.saved_model.load(str(link))
