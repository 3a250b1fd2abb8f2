"""One step of training: the loss of a batch, its gradients, the update."""

import tensorflow as tf
from keras import ops

from pit_keras.models import tracing_for_xla, two_headed
from pit_keras.training.losses import hard_distillation, soft_cross_entropy, soft_distillation


def compiled_step(config, model, optimizer, strategy, teacher=None, average=None):
    """The training step, (images, mixed one-hot labels) of one global batch -> its metrics.

    Args:
        config: A `Config`.
        model: The model, on all replicas.
        optimizer: Built for its trainable variables.
        strategy: The model's `tf.distribute.Strategy`.
        teacher: What `load_teacher` returns, for a model with two heads; None for no distillation.
        average: A `WeightAverage` to be moved after each update; None for none.

    Returns:
        A function whose metrics are means over the batch: `loss`; `top1`, the share of images
        whose largest logit is the class with the largest share of the label; with a teacher
        `class_loss` and `distillation_loss`, the parts that `loss` weighs.

    Raises:
        ValueError: If there is a teacher and the model has not two heads.
    """
    training, variables = config.training, model.trainable_variables
    losses_of = _losses(config, model, teacher is not None)

    @tf.function(jit_compile=training.jit)
    def gradients(images, labels, teacher_logits):
        with tracing_for_xla(training.jit), tf.GradientTape() as tape:
            losses, logits = losses_of(images, labels, teacher_logits)
            # Sums over replicas follow, so each replica divides by the global batch.
            metrics = {
                name: ops.sum(values) / training.batch_size for name, values in losses.items()
            }
            scaled_loss = optimizer.scale_loss(metrics["loss"])
        hits = ops.argmax(logits, axis=-1) == ops.argmax(labels, axis=-1)
        metrics["top1"] = ops.sum(ops.cast(hits, "float32")) / training.batch_size
        return tape.gradient(scaled_loss, variables), metrics

    def update(values):
        optimizer.apply(_clipped(values, config.optimizer.clip_norm, optimizer), variables)

    if training.distribute == "none":
        # Replicas talk to each other in the update, and a function of its own may not do that.
        update = tf.function(update, jit_compile=training.jit)

    def replica_step(images, labels):
        # Not compiled by XLA, whose convolutions are slower than TensorFlow's on a processor; and a
        # SavedModel may hold what XLA cannot compile.
        teacher_logits = None if teacher is None else tf.stop_gradient(teacher(images))
        values, metrics = gradients(images, labels, teacher_logits)
        update(values)
        return metrics

    @tf.function
    def step(images, labels):
        updates = tf.identity(optimizer.iterations)  # before this one
        metrics = strategy.run(replica_step, args=(images, labels))
        if average is not None:
            average.update(updates, strategy)
        return tf.nest.map_structure(
            lambda value: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None), metrics
        )

    return step


def _losses(config, model, distils):
    """A function from a batch to its losses, {name: (B,)}, and the logits that it is measured by.

    DeiT's objective: the class head learns from the mixed, smoothed labels, the distillation head
    from the teacher, and `alpha` is the teacher's share.
    """
    smoothing, distillation = config.training.label_smoothing, config.distillation
    if not distils:

        def plain(images, labels, _):
            logits = model(images, training=True)
            return {"loss": soft_cross_entropy(labels, logits, smoothing)}, logits

        return plain
    heads, alpha = two_headed(model), distillation.alpha

    def distilled(images, labels, teacher_logits):
        logits, distilled_logits = heads(images, training=True)
        class_loss = soft_cross_entropy(labels, logits, smoothing)
        if distillation.kind == "hard":
            distillation_loss = hard_distillation(teacher_logits, distilled_logits)
        else:
            distillation_loss = soft_distillation(
                teacher_logits, distilled_logits, distillation.tau
            )
        losses = {
            "loss": (1 - alpha) * class_loss + alpha * distillation_loss,
            "class_loss": class_loss,
            "distillation_loss": distillation_loss,
        }
        return losses, (logits + distilled_logits) / 2

    return distilled


def _clipped(gradients, clip_norm, optimizer):
    """Gradients scaled so that the norm of all of them together, summed over replicas and without
    the loss scaling of float16, is at most `clip_norm`; None leaves them as they are.

    Keras' `global_clipnorm` would clip each replica's share before they are summed.
    """
    if clip_norm is None:
        return gradients
    replica = tf.distribute.get_replica_context()
    whole = gradients
    if replica.num_replicas_in_sync > 1:
        whole = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    norm = tf.linalg.global_norm(whole) / optimizer.scale_loss(tf.constant(1.0))
    # A norm that is not finite leaves gradients that are not: the loss scaling skips such a step.
    factor = tf.minimum(1.0, clip_norm / norm)
    return [factor * gradient for gradient in gradients]
