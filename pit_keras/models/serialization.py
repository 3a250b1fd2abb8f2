"""`.keras` files: how Keras knows our layers by name, what it keeps of them, and reading a file."""

import inspect
import json
import zipfile

import keras
from keras import layers


def registered(layer):
    """Class decorator: registers a layer as `pit_keras>NAME` and derives its `get_config`.

    The config has all arguments of the constructor, which stores each under its own name, and the
    dtype policies of sublayers that `quantize` has changed.
    """
    names = []
    if layer.__init__ is not layers.Layer.__init__:
        names = list(inspect.signature(layer.__init__).parameters)[1:-1]  # no self, no **kwargs

    def get_config(self):
        config = super(layer, self).get_config()
        parts = self._flatten_layers(include_self=False)
        changed = {part.path: part.dtype_policy for part in parts if part.quantization_mode}
        if changed:
            default = getattr(self.dtype_policy, "default_policy", self.dtype_policy)
            policies = keras.dtype_policies.DTypePolicyMap(default.name, changed)
            config["dtype"] = keras.dtype_policies.serialize(policies)
        return {**config, **{name: getattr(self, name) for name in names}}

    layer.get_config = get_config
    return keras.saving.register_keras_serializable(package="pit_keras")(layer)


def read_model(path):
    """The uncompiled model of a `.keras` file; a ValueError of one line if it cannot be loaded."""
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} cannot be loaded as a Keras model: it is cut short, or not a .keras file."
        )
    try:
        _check_sizes(path)
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras has no error of its own for a damaged file
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path} cannot be loaded as a Keras model: {reason}") from error


def _check_sizes(path):
    """Raises ValueError for a layer of more units than the file has bytes of weights."""
    with zipfile.ZipFile(path) as archive:
        if not {"config.json", "model.weights.h5"} <= set(archive.namelist()):
            return
        weights = archive.getinfo("model.weights.h5").file_size
        largest = _largest(json.loads(archive.read("config.json")))
    if largest > max(weights, 2**20):
        raise ValueError(f"it describes a size of {largest}, but holds {weights} bytes of weights.")


def _largest(config):
    """The largest whole number in a description; seeds and ids are no sizes."""
    if isinstance(config, dict):
        config = [each for key, each in config.items() if not key.endswith(("seed", "_id"))]
    if isinstance(config, list):
        return max(map(_largest, config), default=0)
    return config if type(config) is int else 0
