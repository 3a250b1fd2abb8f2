"""How Keras knows a layer of ours by name, and what a `.keras` file keeps of it."""

import inspect

import keras
from keras import layers


def registered(layer):
    """Class decorator: registers a layer as `pit_keras>NAME` and derives its `get_config`.

    The config has all arguments of the constructor, which stores each under its own name.
    """
    names = list(inspect.signature(layer.__init__).parameters)[1:-1]  # no self, no **kwargs

    def get_config(self):
        return {**super(layer, self).get_config(), **{name: getattr(self, name) for name in names}}

    if layer.__init__ is not layers.Layer.__init__:
        layer.get_config = get_config
    return keras.saving.register_keras_serializable(package="pit_keras")(layer)
