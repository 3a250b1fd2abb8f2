"""Registers the layers with Keras, so that `keras.models.load_model` knows them.

`import pit_keras` promises that, and does not import Keras, which takes seconds and chooses a
backend. So the layers are registered when Keras is imported, or at once where it is there already.
"""

import importlib
import importlib.abc
import importlib.util
import sys


def with_keras():
    """Registers the layers with Keras, now or when Keras is imported."""
    if "keras" in sys.modules:
        importlib.import_module("pit_keras.models")
    else:
        sys.meta_path.insert(0, _AfterKeras())


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Imports Keras as Python would, then the layers."""

    def find_spec(self, name, path=None, target=None):
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                importlib.import_module("pit_keras.models")

            spec.loader.exec_module = execute_and_register
        return spec
