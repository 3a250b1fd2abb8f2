"""A model's forward pass and its training step, compiled the way each backend of Keras compiles.

Each is a function without arguments that returns when the device has finished, to be timed.
"""

import functools

import keras
from keras import ops

from pit_keras.models import tracing_for_xla
from pit_keras.training.losses import soft_cross_entropy
from pit_keras.training.optimizer import AdamP, weight_decay_exclusions

LEARNING_RATE = 1e-4  # small, so that no number of steps on one batch ends in infinity


def inference_call(model, images):
    """The forward pass of a batch, in inference mode.

    Args:
        model: A model of `create_model`, under the global dtype policy.
        images: (B, H, W, 3), float32.

    Returns:
        A function without arguments.
    """
    return _of_backend(_INFERENCE)(model, ops.convert_to_tensor(images))


def training_call(model, images, labels):
    """A training step on a batch: forward pass, cross-entropy, gradient and AdamP's update.

    Args:
        model: As for `inference_call`. It is trained, and on JAX nothing else can be asked of it
            afterwards: the step takes its weights over.
        images: (B, H, W, 3), float32.
        labels: (B,), integers.

    Returns:
        A function without arguments, which returns the loss before the update.
    """
    optimizer = AdamP(LEARNING_RATE, weight_decay=0.05)
    optimizer.exclude_from_weight_decay(var_list=weight_decay_exclusions(model.trainable_variables))
    if keras.config.dtype_policy().name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    targets = ops.one_hot(labels, model.output_shape[-1])  # (B,) -> (B, classes)
    return _of_backend(_TRAINING)(model, optimizer, ops.convert_to_tensor(images), targets)


def _of_backend(functions):
    backend = keras.backend.backend()
    if backend not in functions:
        raise ValueError(
            f"Calls are compiled on {', '.join(functions)}, and Keras runs on {backend!r}."
        )
    return functions[backend]


def _loss(targets, logits):
    return ops.mean(soft_cross_entropy(targets, logits))


def _tensorflow_inference(model, images):
    import tensorflow as tf

    jit = _uses_xla(model)

    @tf.function(jit_compile=jit, autograph=False)
    def forward(images):
        with tracing_for_xla(jit):
            return model(images, training=False)

    return lambda: forward(images).numpy()


def _tensorflow_training(model, optimizer, images, targets):
    import tensorflow as tf

    jit = _uses_xla(model)

    @tf.function(jit_compile=jit, autograph=False)
    def step(images, targets):
        with tracing_for_xla(jit), tf.GradientTape() as tape:
            loss = _loss(targets, model(images, training=True))
            scaled_loss = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    def call():
        loss = step(images, targets)
        tf.test.experimental.sync_devices()  # the loss is there before the update is
        return float(loss)

    return call


def _uses_xla(model):
    """The trainer's own choice."""
    from pit_keras.training.assembly import uses_xla

    return uses_xla("auto", keras.config.dtype_policy().name, model)


def _jax_inference(model, images):
    import jax

    @jax.jit
    def forward(trainable, others, images):
        return model.stateless_call(trainable, others, images, training=False)[0]

    trainable, others = _values(model.trainable_variables), _values(model.non_trainable_variables)
    return lambda: jax.block_until_ready(forward(trainable, others, images))


def _jax_training(model, optimizer, images, targets):
    import jax

    def loss_of(trainable, others, slots):
        logits, others = model.stateless_call(trainable, others, images, training=True)
        loss = _loss(targets, logits)
        with keras.StatelessScope(zip(optimizer.variables, slots, strict=True)):
            return optimizer.scale_loss(loss), (loss, others)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):
        trainable, others, slots = state
        gradients, (loss, others) = jax.grad(loss_of, has_aux=True)(trainable, others, slots)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return (trainable, others, slots), loss

    variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    state = tuple(map(_values, variables))

    def call():
        nonlocal state
        state, loss = step(state)
        jax.block_until_ready(state)
        return float(loss)

    return call


def _values(variables):
    return [variable.value for variable in variables]


def _torch_inference(model, images):
    import torch

    def call():
        with torch.no_grad():
            return model(images, training=False).cpu()  # which waits

    return call


def _torch_training(model, optimizer, images, targets):
    import torch

    def call():
        model.zero_grad()
        loss = _loss(targets, model(images, training=True))
        optimizer.scale_loss(loss).backward()
        gradients = [variable.value.grad for variable in model.trainable_variables]
        with torch.no_grad():
            optimizer.apply(gradients, model.trainable_variables)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return float(loss.detach())

    return call


_INFERENCE = {
    "tensorflow": _tensorflow_inference,
    "jax": _jax_inference,
    "torch": _torch_inference,
}
_TRAINING = {
    "tensorflow": _tensorflow_training,
    "jax": _jax_training,
    "torch": _torch_training,
}
