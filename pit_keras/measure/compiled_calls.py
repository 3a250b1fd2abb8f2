"""A model's forward pass and its training step, compiled by Keras on any backend, to be timed.

Each is a function without arguments that returns when the device has finished.
"""

import keras
from keras import ops

from pit_keras.models import tracing_for_xla
from pit_keras.training.losses import soft_cross_entropy
from pit_keras.training.optimizer import AdamP, weight_decay_exclusions

LEARNING_RATE = 1e-4  # small, so that no number of steps on one batch ends in infinity


def inference_call(model, images):
    """A function that returns the logits of images (B, H, W, 3), float32."""
    jit, images = _uses_xla(model), ops.convert_to_tensor(images)
    model.compile(jit_compile=jit)

    def call():
        with tracing_for_xla(jit):
            return model.predict_on_batch(images)  # as an array, which waits for the device

    return call


def training_call(model, images, labels):
    """A function that trains on images and integer labels (B,): AdamP's step on the cross-entropy.

    It returns the loss before the step.
    """
    jit, images = _uses_xla(model), ops.convert_to_tensor(images)
    targets = ops.one_hot(labels, model.output_shape[-1])  # (B,) -> (B, classes)
    optimizer = AdamP(LEARNING_RATE, weight_decay=0.05)
    optimizer.exclude_from_weight_decay(var_list=weight_decay_exclusions(model.trainable_variables))
    model.compile(optimizer, soft_cross_entropy, jit_compile=jit)  # scales float16's loss

    def call():
        with tracing_for_xla(jit):
            loss = model.train_on_batch(images, targets)
        # The loss is there before the update is; the last variable is updated last.
        ops.convert_to_numpy(model.trainable_variables[-1])
        return float(loss)

    return call


def _uses_xla(model):
    """The trainer's own choice on TensorFlow; JAX always compiles, PyTorch runs eagerly."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        return backend == "jax"
    from pit_keras.training.assembly import uses_xla

    return uses_xla("auto", keras.config.dtype_policy().name, model)
