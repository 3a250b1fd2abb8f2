"""Exported models compute in float32, whatever a model was trained with."""

import contextlib
import dataclasses

import tensorflow as tf

from pit_keras.models.dtype_policy import with_dtype_policy


def in_float32(trained):
    """The same `TrainedModel`, computing in float32.

    Casts to 16 bits are right for the device that a model was trained on and wrong for a file that
    is to run anywhere.
    """
    return dataclasses.replace(trained, model=with_dtype_policy(trained.model, "float32"))


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
