"""Registers layers, optimizers, schedules and losses, so that `keras.models.load_model` knows them.

`import pit_keras` promises that, and does not import Keras, which takes seconds and chooses a
backend. So they are registered when Keras is imported, or at once where it is there already.
"""

import importlib
import importlib.abc
import importlib.util
import sys


def with_keras():
    """Registers them with Keras, now or when Keras is imported."""
    if "keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterKeras())


def _register():
    for module in ("models", "optimizers", "schedules", "losses"):
        importlib.import_module(f"pit_keras.{module}")


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Imports Keras as Python would, then what it has to know."""

    def find_spec(self, name, path=None, target=None):
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                _register()

            spec.loader.exec_module = execute_and_register
        return spec
