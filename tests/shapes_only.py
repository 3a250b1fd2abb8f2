"""Models of full size without their weights, for tests that count or read shapes."""

import pit_keras
from pit_keras.models import cost


def shapes_only(name, **arguments):
    """A model of `create_model` whose weights have shapes but no values: quick and small."""
    with cost.shapes_only():
        return pit_keras.create_model(name, **arguments)
