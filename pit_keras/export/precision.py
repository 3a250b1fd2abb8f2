"""Exported models compute in float32, whatever a model was trained with."""

import contextlib
import dataclasses

import keras
import tensorflow as tf


def in_float32(trained):
    """The same `TrainedModel`, computing in float32.

    A model trained in mixed precision has float32 weights and casts them to 16 bits at each use,
    which is right for the device it was trained on and wrong for a file that is to run anywhere.
    The result has the same weights without the casts. A model that computes in float32 already is
    returned as it is.
    """
    if all(layer.compute_dtype == "float32" for layer in trained.model.layers):
        return trained
    model = keras.models.clone_model(trained.model, clone_function=_clone_in_float32)
    model.set_weights(trained.model.get_weights())
    return dataclasses.replace(trained, model=model)


@contextlib.contextmanager
def full_float32():
    """Within it, GPUs multiply float32 matrices in float32 and not in TensorFloat-32.

    That is TensorFlow's default on recent GPUs and keeps 10 bits of the 23: a model would differ
    from its own export on a processor by far more than the order of summation explains.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _clone_in_float32(operation):
    config = operation.get_config()
    if isinstance(operation, keras.layers.Layer):  # the others, such as slices, have no precision
        config["dtype"] = "float32"
    return operation.__class__.from_config(config)
