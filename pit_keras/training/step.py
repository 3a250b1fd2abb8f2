"""One step of training: the losses of a batch, their gradients over all replicas, the update."""

import keras
import tensorflow as tf

from pit_keras.models import recomputing_blocks

_SUM = tf.distribute.ReduceOp.SUM
_MIRRORED = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)


def compiled_step(config, model, loss, optimizer, strategy, *, jit, average=None):
    """The training step: one update from the global batch, made of `accumulate` batches.

    Dropout and drop path are functions of the run's seed, the step, the replica and the batch; the
    states of Keras' generators are not used. Each replica's BatchNormalization normalises by its
    own share of a batch; the moving statistics are the means over the replicas.

    Args:
        loss: The loss of a task, see `pit_keras.training.tasks`.
        average: A `WeightAverage` to be moved after each update, or None.

    Returns:
        A function of a batch on the replicas, {name: (B, ...)}, the step's number (an int64 tensor)
        and this worker's requests, a float32 tensor. It returns scalars: the loss' own;
        `gradient_norm`, before clipping; with float16 `loss_scale` and `skipped_updates`, 1 where
        gradients overflowed; and `requests`, summed over the replicas of all workers.
    """
    variables, accumulate = model.trainable_variables, config.training.accumulate
    is_mirrored = isinstance(strategy, _MIRRORED)
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    gradients = _gradients(config, model, loss, optimizer, jit)
    statistics = _moving_statistics(model)

    def update(values):
        optimizer.apply(values, variables)

    if is_mirrored:
        # The step sums the gradients, since their norm is that of the sum; the optimizer must not.
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        inner._all_reduce_sum_gradients = lambda pairs: pairs
    else:
        # With a mirrored strategy, replicas communicate in the update, which a function within
        # `strategy.run` may not do.
        update = tf.function(update, jit_compile=jit, autograph=False)

    def replica_step(batch, number, requests):
        replica = tf.distribute.get_replica_context()
        seed = _replica_seed(config.training.seed, number, replica.replica_id_in_sync_group)
        totals = loss.totals(batch)
        if totals and is_mirrored:
            totals = replica.all_reduce(_SUM, totals)
        values, metrics = _accumulated(gradients, batch, totals, seed, accumulate)
        if is_mirrored:
            values, moved = _reduced(replica, values, statistics)
            for variable, value in zip(statistics, moved, strict=True):
                variable.assign(value)
        values, norm = _clipped(values, config.optimizer.clip_norm, optimizer)
        update(values)
        # A copy: the tensor itself would not count once for each replica.
        return metrics, norm, tf.identity(requests)

    # Where sizes of images differ, the second one is traced as any size.
    @tf.function(autograph=False, reduce_retracing=True)
    def step(batch, number, requests):
        updates = tf.identity(optimizer.iterations)  # before this one
        scale = optimizer.scale_loss(tf.constant(1.0))
        outputs = strategy.run(replica_step, (batch, number, requests))
        if average is not None:
            average.update(updates, strategy)
        return _results(strategy, *outputs, loss_scale=scale if is_scaled else None)

    return step


def _reduced(replica, gradients, statistics):
    """The sums of the gradients and the means of the statistics over the replicas.

    In one reduction: replicas could begin two independent ones in different orders.
    """
    shares = [variable / replica.num_replicas_in_sync for variable in statistics]
    sums = replica.all_reduce(_SUM, [*gradients, *shares])
    return sums[: len(gradients)], sums[len(gradients) :]


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
    """The variables that training moves without a gradient."""
    return [
        statistic
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for statistic in (layer.moving_mean, layer.moving_variance)
    ]


def _replica_seed(seed, number, replica):
    """The seed, int64 (2,), of all random numbers of one replica in one step."""
    run = tf.stack([tf.constant(seed, tf.int64), number])
    return tf.random.experimental.stateless_fold_in(run, tf.cast(replica, tf.int64))


def _gradients(config, model, loss, optimizer, jit):
    """A function of one batch, the update's totals and a seed: its share of the update's gradients,
    and its shares of the metrics.
    """
    training = config.training
    weights = {id(variable) for variable in model.weights}
    generators = [variable for variable in model.variables if id(variable) not in weights]
    statistics = _moving_statistics(model)

    @tf.function(jit_compile=jit, autograph=False)
    def compiled(batch, given, totals, seed):
        states = [(v, tf.stack([seed[0], seed[1] + i])) for i, v in enumerate(generators)]
        with recomputing_blocks(training.recompute_blocks):
            with keras.StatelessScope(states) as scope, tf.GradientTape() as tape:
                metrics = loss(batch, given, totals)
                scaled_loss = optimizer.scale_loss(metrics["loss"])
            values = tape.gradient(scaled_loss, model.trainable_variables)
        for variable in statistics:
            moved = scope.get_current_value(variable)
            if moved is not None:
                variable.assign(moved)
        return values, metrics

    def of_batch(batch, totals, seed):
        return compiled(batch, loss.given(batch), totals, seed)

    return of_batch


def _accumulated(gradients, batch, totals, seed, parts):
    """Sums of `gradients` over a replica's batch in so many parts, one after the other."""
    if parts == 1:
        return gradients(batch, totals, seed)
    batch = {name: _divided(values, parts) for name, values in batch.items()}

    def of_part(part):
        part_seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(part, tf.int64))
        return gradients({name: values[part] for name, values in batch.items()}, totals, part_seed)

    def body(part, sums):
        return part + 1, tf.nest.map_structure(tf.add, sums, of_part(part))

    first = tf.nest.map_structure(tf.convert_to_tensor, of_part(tf.constant(0)))
    return tf.while_loop(
        lambda part, _: part < parts, body, (tf.constant(1), first), parallel_iterations=1
    )[1]


def _divided(values, parts):
    """(B, ...) -> (parts, B / parts, ...); all sizes but B may be unknown."""
    size = values.shape[0] // parts
    shape = tf.concat([[parts, size], tf.shape(values)[1:]], axis=0)
    return tf.ensure_shape(tf.reshape(values, shape), (parts, size, *values.shape[1:]))


def _clipped(gradients, clip_norm, optimizer):
    """Gradients scaled to a global norm of at most `clip_norm` (None: unscaled), and their norm.

    Both norms are without the loss scaling of float16; the returned one is before clipping.
    """
    norm = tf.linalg.global_norm(gradients)
    norm /= tf.cast(optimizer.scale_loss(tf.constant(1.0)), norm.dtype)
    if clip_norm is None:
        return gradients, norm
    # A norm that is not finite leaves gradients that are not: the loss scaling skips such a step.
    factor = tf.minimum(tf.ones_like(norm), clip_norm / norm)
    return [factor * gradient for gradient in gradients], norm
