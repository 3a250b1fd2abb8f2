"""AdamP, AdamW, and which variables of a model are spared their weight decay.

Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights",
ICLR 2021, arXiv 2006.08217. Every training setting of the PiT paper uses it (its section 4.1) but
that of the detector (section 4.2), which is AdamW.
"""

import math

import keras
from keras import ops

NO_DECAY_NAMES = ("position_embedding", "class_tokens")


def weight_decay_exclusions(variables):
    """The variables that get no weight decay: vectors, position embeddings and class tokens.

    Vectors are biases and the scales and offsets of normalisation layers. Meant for
    `optimizer.exclude_from_weight_decay(var_list=weight_decay_exclusions(variables))`; Keras does
    not store that choice with an optimizer, so it has to be made again on one that was loaded.

    Args:
        variables: a model's trainable `keras.Variable`s.

    Returns:
        The excluded ones, as a list in the order given.
    """
    return [v for v in variables if len(v.shape) <= 1 or v.name in NO_DECAY_NAMES]


def output_channel_axes(path, shape):
    """The axes of a variable that number its output channels, one row of AdamP's channel view each.

    PyTorch keeps output channels on axis 0. A Keras kernel keeps them on its last axis, and a
    depth-wise kernel `(height, width, channels, multiplier)` on its last two. Every other variable
    keeps axis 0, as in PyTorch: a position embedding `(1, height, width, channels)` and class
    tokens `(1, tokens, channels)` are one single row each.

    A variable is a kernel if its name ends in "kernel", and a depth-wise one if, besides, its name
    or its layer's name (the component of the path before it) contains "depthwise" or "dwconv" and
    it has more than two axes.

    Args:
        path: the variable's path, "block/dense/kernel" say; its last component is the name.
        shape: the variable's shape.

    Returns:
        A tuple of axes, non-negative and ascending; empty for a scalar.
    """
    rank = len(shape)
    layer_and_name = path.split("/")[-2:]
    if not layer_and_name[-1].endswith("kernel"):
        return (0,) if rank else ()
    depthwise = any(word in part for part in layer_and_name for word in ("depthwise", "dwconv"))
    return (rank - 2, rank - 1) if depthwise and rank > 2 else (rank - 1,)


@keras.saving.register_keras_serializable(package="pit_keras")
class AdamP(keras.optimizers.Optimizer):
    """Adam without the part of the step that only lengthens scale-invariant weights.

    Where a gradient is nearly orthogonal to its weight, the weight is taken to be scale-invariant:
    the radial component of Adam's step is removed, and the weight decay, which is decoupled as in
    AdamW, is multiplied by `wd_ratio`. The decision is taken for a tensor as a whole: the largest
    |cosine(gradient, weight)| over its rows has to be below `delta / sqrt(row length)`. It is tried
    with one row per output channel first (see `output_channel_axes`), then with the whole tensor as
    one row. Tensors of fewer than two dimensions are never projected.

    Follows algorithm 1 of the paper and the authors' PyTorch optimizer; there, too, the gradient
    and not the momentum decides. Bias corrections are computed in a form that keeps float32's
    precision in the first steps, where `1 - beta_2 ** step` loses three digits.

    Args:
        learning_rate: a float, a `LearningRateSchedule` or a callable without arguments.
        beta_1: decay of the first moment, in [0, 1).
        beta_2: decay of the second moment, in [0, 1).
        epsilon: added to the root of the second moment and to the norms that are divided by.
        weight_decay: decoupled decay per step, as a multiple of the learning rate.
            `exclude_from_weight_decay` spares single variables.
        delta: threshold of the projection; 0 never projects.
        wd_ratio: factor on the weight decay of a tensor that was projected.
        nesterov: whether to look ahead as Nesterov's momentum does.
        **kwargs: `keras.optimizers.Optimizer`'s own: `clipnorm`, `clipvalue`, `global_clipnorm`,
            `use_ema`, `ema_momentum`, `ema_overwrite_frequency`, `loss_scale_factor`,
            `gradient_accumulation_steps`, `name`.

    Raises:
        ValueError: for a value out of its range.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        weight_decay=0.0,
        delta=0.1,
        wd_ratio=0.1,
        nesterov=False,
        **kwargs,
    ):
        kind = type(self).__name__
        for name, value in (("beta_1", beta_1), ("beta_2", beta_2)):
            if not 0 <= value < 1:
                raise ValueError(f"{kind}: {name} must be in [0, 1), got {value!r}.")
        if not epsilon > 0:
            raise ValueError(f"{kind}: epsilon must be positive, got {epsilon!r}.")
        for name, value in (("weight_decay", weight_decay), ("delta", delta)):
            if value is None or not value >= 0:
                raise ValueError(f"{kind}: {name} must be zero or more, got {value!r}.")
        if not 0 <= wd_ratio <= 1:
            raise ValueError(f"{kind}: wd_ratio must be in [0, 1], got {wd_ratio!r}.")
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.delta = delta
        self.wd_ratio = wd_ratio
        self.nesterov = nesterov
        self._scale_of = {}

    def scale_learning_rates(self, scales):
        """Gives variables learning rates of their own, as multiples of the optimizer's.

        A factor acts as the rate of a parameter group does in PyTorch: on the step and on the
        weight decay. Like the variables excluded from weight decay it is not stored with the
        optimizer.

        Args:
            scales: pairs (variable, factor), factors not negative; all others keep 1.

        Raises:
            ValueError: the optimizer is built already, or a factor is negative.
        """
        if self.built:
            raise ValueError("Learning rates can only be scaled before the optimizer is built.")
        scales = {self._var_key(variable): float(factor) for variable, factor in scales}
        if not all(factor >= 0 for factor in scales.values()):
            raise ValueError("Factors of the learning rate must not be negative.")
        self._scale_of = scales

    def build(self, variables):
        """Creates the two moments of every variable; looks up its channel axes and its factor."""
        if self.built:
            return
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )
        # Here and not in `update_step`, which TensorFlow hands variables without a path.
        self._channel_axes = [output_channel_axes(_path(v), v.shape) for v in variables]
        self._scales = [self._scale_of.get(self._var_key(v), 1.0) for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Moves one variable (any shape) by its gradient (the same shape)."""
        dtype = keras.backend.result_type(variable.dtype, "float32")
        gradient = ops.cast(gradient, dtype)
        weight = ops.cast(variable, dtype)

        index = self._get_variable_index(variable)
        learning_rate = ops.cast(learning_rate, dtype) * self._scales[index]
        decay = learning_rate * (self.weight_decay if self._use_weight_decay(variable) else 0.0)
        step_size, direction = self._adam_step(index, gradient, learning_rate)
        if len(variable.shape) < 2 or not self.delta:
            pull = decay
        else:
            projected, radial = project(
                gradient, weight, direction, self._channel_axes[index], self.delta, self.epsilon
            )
            pull = ops.where(projected, self.wd_ratio * decay, decay) - step_size * radial
        # Decay and projection are both multiples of the weight: one pass over it does for the two.
        self.assign(variable, (1 - pull) * weight - step_size * direction)

    def _adam_step(self, index, gradient, learning_rate):
        """Updates the moments; returns Adam's step as a scalar size and a direction (any shape)."""
        dtype = gradient.dtype
        step = ops.cast(self.iterations + 1, dtype)
        first = ops.cast(self._momentums[index], dtype)
        second = ops.cast(self._velocities[index], dtype)
        first = self.beta_1 * first + (1 - self.beta_1) * gradient
        second = self.beta_2 * second + (1 - self.beta_2) * ops.square(gradient)
        self.assign(self._momentums[index], first)
        self.assign(self._velocities[index], second)

        if self.nesterov:
            first = self.beta_1 * first + (1 - self.beta_1) * gradient
        # The second moment's correction is a scalar: it goes to the step size, not to the tensor.
        correction = ops.sqrt(_bias_correction(self.beta_2, step))
        step_size = learning_rate * correction / _bias_correction(self.beta_1, step)
        return step_size, first / (ops.sqrt(second) + self.epsilon * correction)

    def _apply_weight_decay(self, variables):
        """Keeps the base class from decaying as well: `update_step` does, with `wd_ratio`."""

    def get_config(self):
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "wd_ratio": self.wd_ratio,
            "nesterov": self.nesterov,
        }


@keras.saving.register_keras_serializable(package="pit_keras")
class AdamW(AdamP):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019, arXiv 1711.05101).

    It is AdamP that never projects, and not `keras.optimizers.AdamW`, which has one learning rate:
    here `scale_learning_rates` gives single variables their own, for step and decay both.

    Args:
        learning_rate, beta_1, beta_2, epsilon, weight_decay, **kwargs: As for `AdamP`. `epsilon` is
            added after the bias correction, as in PyTorch.

    Raises:
        ValueError: for a value out of its range.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        weight_decay=0.0,
        **kwargs,
    ):
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            weight_decay=weight_decay,
            delta=0.0,
            **kwargs,
        )

    def get_config(self):
        projection = ("delta", "wd_ratio", "nesterov")
        return {k: value for k, value in super().get_config().items() if k not in projection}


def project(gradient, weight, direction, channel_axes, delta, epsilon):
    """Finds the radial part of a step, to be removed if the weight looks scale-invariant.

    Args:
        gradient, weight, direction: tensors of one shape, of two or more dimensions.
        channel_axes: the axes that number the rows of the channel view; the rest is flattened.
        delta, epsilon: as in `AdamP`.

    Returns:
        `projected`, a boolean scalar, and `radial`, which broadcasts against `weight`: the step
        without its radial part is `direction - radial * weight`. Zero where nothing is projected.
    """
    size = math.prod(weight.shape)
    rows = math.prod(weight.shape[axis] for axis in channel_axes)
    within_row = tuple(axis for axis in range(len(weight.shape)) if axis not in channel_axes)
    # Sums over the axes of a row stand for the (rows, row length) matrix, which is never built.
    products = ops.stack(
        [
            ops.sum(product, axis=within_row, keepdims=True)
            for product in (
                gradient * weight,
                ops.square(gradient),
                ops.square(weight),
                direction * weight,
            )
        ]
    )  # 4 x weight.shape -> (4, rows, 1, ..., 1), the ones wherever an axis was summed over
    by_channel, channel_radial = _project_view(products, size // rows, delta, epsilon)
    # The layer view's one row holds all of the rows: its products are the sums of theirs.
    totals = ops.sum(products, axis=tuple(range(1, len(weight.shape) + 1)))  # -> (4,)
    by_layer, layer_radial = _project_view(totals, size, delta, epsilon)
    radial = ops.where(by_channel, channel_radial, ops.where(by_layer, layer_radial, 0.0))
    return ops.logical_or(by_channel, by_layer), radial


def _project_view(products, row_length, delta, epsilon):
    """`project` for one view, from the four inner products of each of its rows."""
    gradient_weight, gradient_gradient, weight_weight, direction_weight = ops.unstack(products)
    weight_norm = ops.sqrt(weight_weight)
    norms = ops.maximum(ops.sqrt(gradient_gradient), epsilon) * ops.maximum(weight_norm, epsilon)
    cosine = ops.abs(gradient_weight) / norms
    projected = ops.max(cosine) < delta / math.sqrt(row_length)
    return projected, direction_weight / ops.square(weight_norm + epsilon)


def _bias_correction(beta, step):
    """`1 - beta ** step` for a positive float tensor `step`."""
    return -ops.expm1(step * math.log(beta)) if beta else ops.ones_like(step)


def _path(variable):
    """A variable's path; a `tf.Variable` has none and carries it in its name, "dense/kernel:0"."""
    return getattr(variable, "path", variable.name).split(":")[0]
