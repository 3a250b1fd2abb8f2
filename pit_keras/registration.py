"""Registers layers, optimizers, schedules and losses, so that `keras.models.load_model` knows them.

`import pit_keras` promises that, and does not import Keras, which takes seconds and chooses a
backend. So they are registered when Keras is imported, or at once where it is there already.
"""

import contextlib
import importlib
import importlib.abc
import importlib.util
import sys


class ImportHook(importlib.abc.MetaPathFinder):
    """Imports some packages as Python would, each within `context(name)`; the latest is outside."""

    def __init__(self, names, context):
        self.names, self.context = set(names), context
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        if name not in self.names:
            return None
        self.names.remove(name)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_within(module):
                with self.context(name):
                    execute(module)

            spec.loader.exec_module = execute_within
        return spec


def with_keras():
    """Registers them with Keras, now or when Keras is imported."""
    if "keras" in sys.modules:
        _register()
    else:
        ImportHook(["keras"], _registering)


@contextlib.contextmanager
def _registering(_):
    yield
    _register()


def _register():
    for module in ("models", "optimizers", "schedules", "losses"):
        importlib.import_module(f"pit_keras.{module}")
