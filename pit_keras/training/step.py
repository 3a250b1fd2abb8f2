"""One step of training: the losses of a batch, their gradients over all replicas, the update."""

import keras
import tensorflow as tf
from keras import ops

from pit_keras.models import recomputing_blocks, tracing_for_xla, two_headed
from pit_keras.training.losses import hard_distillation, soft_cross_entropy, soft_distillation

_SUM = tf.distribute.ReduceOp.SUM
_MIRRORED = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)


def compiled_step(config, model, optimizer, strategy, *, jit, teacher=None, average=None):
    """The training step: one update from the global batch, which `accumulate` batches make up.

    The random decisions in the model (dropout, drop path) are functions of the run's seed, the
    step, the replica and the batch; the states of Keras' generators are not used. Each replica's
    BatchNormalization normalises by its own share of a batch; the moving statistics are the means
    over the replicas.

    Args:
        config: A `Config`.
        model: The model, on all replicas.
        optimizer: Built for its trainable variables.
        strategy: The model's `tf.distribute.Strategy`.
        jit: Whether XLA compiles it.
        teacher: What `load_teacher` returns, for a model with two heads; None for no distillation.
        average: A `WeightAverage` to be moved after each update; None for none.

    Returns:
        A function of images and mixed one-hot labels on the replicas, the step's number (an int64
        tensor) and this worker's requests, a float32 tensor of any length. It returns a dict of
        scalars: `loss`; `top1`, the share of images whose largest logit is the class with the
        largest share of the label; with a teacher `class_loss` and `distillation_loss`, the parts
        that `loss` weighs; `gradient_norm`, of all gradients together before clipping; with
        float16 `loss_scale` and `skipped_updates`, 1 where gradients overflowed, else 0;
        and `requests`, summed over the replicas of all workers.

    Raises:
        ValueError: If there is a teacher and the model has not two heads.
    """
    variables, accumulate = model.trainable_variables, config.training.accumulate
    is_mirrored = isinstance(strategy, _MIRRORED)
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    gradients = _gradients(config, model, optimizer, jit, teacher)
    statistics = _moving_statistics(model)

    def update(values):
        optimizer.apply(values, variables)

    if is_mirrored:
        # They are summed here, since their norm is that of the sum, and not to be summed again.
        _inner(optimizer)._all_reduce_sum_gradients = lambda pairs: pairs
    else:
        # With others, replicas talk in the update, and a function of its own may not do that.
        update = tf.function(update, jit_compile=jit, autograph=False)

    def replica_step(images, labels, number, requests):
        replica = tf.distribute.get_replica_context()
        seed = _replica_seed(config.training.seed, number, replica.replica_id_in_sync_group)
        values, metrics = _accumulated(gradients, images, labels, seed, accumulate)
        if is_mirrored:
            values, moved = _reduced(replica, values, statistics)
            for variable, value in zip(statistics, moved, strict=True):
                variable.assign(value)
        values, norm = _clipped(values, config.optimizer.clip_norm, optimizer)
        update(values)
        # Not the tensor itself, which would not count as one for each replica.
        return metrics, norm, tf.identity(requests)

    @tf.function(autograph=False)
    def step(images, labels, number, requests):
        updates = tf.identity(optimizer.iterations)  # before this one
        scale = optimizer.scale_loss(tf.constant(1.0))
        outputs = strategy.run(replica_step, (images, labels, number, requests))
        if average is not None:
            average.update(updates, strategy)
        return _results(strategy, *outputs, loss_scale=scale if is_scaled else None)

    return step


def _reduced(replica, gradients, statistics):
    """The sums of the gradients and the means of the statistics over the replicas.

    In one go: two that do not depend on each other could begin in another order on each replica.
    """
    shares = [variable / replica.num_replicas_in_sync for variable in statistics]
    sums = replica.all_reduce(_SUM, [*gradients, *shares])
    return sums[: len(gradients)], sums[len(gradients) :]


def _inner(optimizer):
    return getattr(optimizer, "inner_optimizer", optimizer)


def _results(strategy, metrics, norm, requests, loss_scale):
    """What a step returns, from what `replica_step` returned on each replica."""
    sums = {**metrics, "requests": requests}
    results = {name: strategy.reduce(_SUM, value, axis=None) for name, value in sums.items()}
    norm = strategy.experimental_local_results(norm)[0]  # the same on all
    if loss_scale is None:
        return {**results, "gradient_norm": norm}
    is_finite = tf.math.is_finite(norm)
    return {
        **results,
        "gradient_norm": tf.where(is_finite, norm, 0.0),
        "loss_scale": loss_scale,
        "skipped_updates": 1 - tf.cast(is_finite, tf.float32),
    }


def _moving_statistics(model):
    """The variables that training moves although they have no gradient."""
    norms = (
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    )
    return [statistic for norm in norms for statistic in (norm.moving_mean, norm.moving_variance)]


def _replica_seed(seed, number, replica):
    """The seed, int64 (2,), of all that one replica draws in one step."""
    run = tf.stack([tf.constant(seed, tf.int64), number])
    return tf.random.experimental.stateless_fold_in(run, tf.cast(replica, tf.int64))


def _gradients(config, model, optimizer, jit, teacher):
    """A function of one batch's images, labels and seed: its share of the update's gradients, and
    its sums of the metrics, both divided by the images of the update.
    """
    training, images_of_update = config.training, config.training.images_of_update
    losses_of = _losses(config, model, teacher is not None)
    weights = {id(variable) for variable in model.weights}
    generators = [variable for variable in model.variables if id(variable) not in weights]
    statistics = _moving_statistics(model)

    @tf.function(jit_compile=jit, autograph=False)
    def compiled(images, labels, teacher_logits, seed):
        states = [(v, tf.stack([seed[0], seed[1] + i])) for i, v in enumerate(generators)]
        with tracing_for_xla(jit), recomputing_blocks(training.recompute_blocks):
            with keras.StatelessScope(states) as scope, tf.GradientTape() as tape:
                losses, logits = losses_of(images, labels, teacher_logits)
                # Sums over replicas follow, so each replica divides by the global batch.
                metrics = {
                    name: ops.sum(values) / training.images_of_update
                    for name, values in losses.items()
                }
                scaled_loss = optimizer.scale_loss(metrics["loss"])
            values = tape.gradient(scaled_loss, model.trainable_variables)
        for variable in statistics:
            moved = scope.get_current_value(variable)
            if moved is not None:
                variable.assign(moved)
        hits = ops.argmax(logits, axis=-1) == ops.argmax(labels, axis=-1)
        metrics["top1"] = ops.sum(ops.cast(hits, "float32")) / images_of_update
        return values, metrics

    def of_batch(images, labels, seed):
        # Not compiled by XLA, whose convolutions are slower than TensorFlow's on a processor; and a
        # SavedModel may hold what XLA cannot compile.
        teacher_logits = None if teacher is None else tf.stop_gradient(teacher(images))
        return compiled(images, labels, teacher_logits, seed)

    return of_batch


def _accumulated(gradients, images, labels, seed, parts):
    """Sums of `gradients` over a replica's images in so many parts, one after the other."""
    if parts == 1:
        return gradients(images, labels, seed)
    images, labels = (
        tf.reshape(values, [parts, -1, *values.shape[1:]]) for values in (images, labels)
    )

    def of_part(part):
        part_seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(part, tf.int64))
        return gradients(images[part], labels[part], part_seed)

    def body(part, sums):
        return part + 1, tf.nest.map_structure(tf.add, sums, of_part(part))

    first = tf.nest.map_structure(tf.convert_to_tensor, of_part(tf.constant(0)))
    return tf.while_loop(
        lambda part, _: part < parts, body, (tf.constant(1), first), parallel_iterations=1
    )[1]


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
    """Gradients scaled so that the norm of all of them together, without the loss scaling of
    float16, is at most `clip_norm`, or as they are for None; and that norm as it was.
    """
    norm = tf.linalg.global_norm(gradients) / optimizer.scale_loss(tf.constant(1.0))
    if clip_norm is None:
        return gradients, norm
    # A norm that is not finite leaves gradients that are not: the loss scaling skips such a step.
    factor = tf.minimum(1.0, clip_norm / norm)
    return [factor * gradient for gradient in gradients], norm
