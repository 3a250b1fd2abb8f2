"""Models of full size without their weights, for tests that count or read shapes."""

import keras

import pit_keras


def shapes_only(name, **arguments):
    """A model of `create_model` whose weights have shapes but no values: quick and small."""
    with keras.StatelessScope(initialize_variables=False):
        model = pit_keras.create_model(name, **arguments)
    # Keras would draw the values at the end of the next scope, whichever that is.
    keras.utils.clear_session(free_memory=False)
    return model
