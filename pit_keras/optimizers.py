"""AdamP and AdamW, with the weight decay and the layer-wise rates of the recipes.

Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights",
ICLR 2021, arXiv 2006.08217. The PiT paper trains classifiers with AdamP (section 4.1) and the
detector with AdamW (section 4.2).
"""

import itertools
import math
import re
from typing import Any

import keras
from keras import ops

_NO_DECAY = ("position_embedding", "class_tokens")
_BLOCK = re.compile(r"(stage\d+_block\d+)(_.*)?")


def decays(variable):
    """Whether the recipes decay a variable: no vectors, position embeddings and class tokens."""
    return len(variable.shape) > 1 and variable.name not in _NO_DECAY


def depth_factors(variables, layer_decay):
    """Each variable's factor of the learning rate, `layer_decay ** (L + 1 - depth)`.

    The depth is 0 for what comes before the first block, 1 to L for the blocks of all stages, and
    L + 1 for what comes after the last one, as in BEiT's fine-tuning (Bao et al., arXiv 2106.08254)
    and in timm. What lies between two blocks, such as a pooling, belongs to the block before.
    Blocks are layers named `stage1_block1`, `stage1_block2`, ..., or `stage1_block1_conv1`, ...;
    the variables are in the order of the model, and frozen ones may be missing.
    """
    blocks = [_block(variable) for variable in variables]
    numbers = {block: n for n, block in enumerate(dict.fromkeys(filter(None, blocks)), 1)}
    if not numbers:
        raise ValueError(
            "layer_decay needs trainable blocks, layers named stage1_block1, ...; there are none."
        )
    end = max(place for place, block in enumerate(blocks, 1) if block)
    # A shortcut of a block may come after the next one's first layer: never back to a lower depth.
    depths = list(itertools.accumulate((numbers.get(block, 0) for block in blocks[:end]), max))
    depths += [len(numbers) + 1] * (len(blocks) - end)
    return [layer_decay ** (len(numbers) + 1 - depth) for depth in depths]


def _block(variable):
    matches = (_BLOCK.fullmatch(part) for part in _path(variable).split("/"))
    return next((match[1] for match in matches if match), None)


def output_channel_axes(path, shape):
    """The axes of a variable's output channels: each channel is a row of AdamP's channel view.

    PyTorch keeps output channels on axis 0. A Keras kernel keeps them on its last axis, and a
    depth-wise kernel (height, width, channels, multiplier) on its last two: one that has more than
    two axes and "depthwise" or "dwconv" in the last two parts of its path. Every other variable
    keeps axis 0, as in PyTorch: a position embedding (1, height, width, channels) and class tokens
    (1, tokens, channels) are one row each.
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

    A weight counts as scale-invariant if its gradient is nearly orthogonal to it. Then the radial
    component of Adam's step is removed, and the weight decay, which is decoupled as in AdamW, is
    multiplied by `wd_ratio`. The decision is taken per tensor: the largest |cosine(gradient,
    weight)| over its rows must be below `delta / sqrt(row length)`, first with one row per output
    channel (see `output_channel_axes`), then with the whole tensor as one row. Tensors of fewer
    than two dimensions are never projected.

    Follows algorithm 1 of the paper and the authors' PyTorch optimizer: the gradient decides, not
    the momentum. Bias corrections keep float32's precision in the first steps, where
    `1 - beta_2 ** step` loses three digits.

    Args:
        learning_rate: A number, or a schedule such as `pit_keras.schedules.WarmUpCosine`.
        epsilon: Added to the root of the second moment, and to norms before a division.
        weight_decay: Decoupled decay per step, as a multiple of the learning rate.
        delta: Threshold of the projection; 0 never projects.
        wd_ratio: Factor on the weight decay of a projected tensor.
        decay_all: Whether biases, norms, position embeddings and class tokens decay too.
        layer_decay: Each block's rate over the next block's, for fine-tuning: see `depth_factors`.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float | None = 0.0,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        nesterov: bool = False,
        decay_all: bool = False,
        layer_decay: float = 1.0,
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.delta = delta
        self.wd_ratio = wd_ratio
        self.nesterov = nesterov
        self.decay_all = decay_all
        self.layer_decay = layer_decay
        self._scale_of = {}

    def scale_learning_rates(self, scales):
        """Gives variables learning rates of their own: pairs (variable, factor).

        A factor acts on the step and on the weight decay, like the rate of a parameter group in
        PyTorch. It is not stored with the optimizer.
        """
        if self.built:
            raise ValueError("Scale learning rates before the optimizer is built.")
        self._scale_of = {self._var_key(variable): float(factor) for variable, factor in scales}

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )
        # Here and not in `update_step`, which TensorFlow hands variables without a path.
        self._channel_axes = [output_channel_axes(_path(v), v.shape) for v in variables]
        self._decays = [
            self._use_weight_decay(v) and (self.decay_all or decays(v)) for v in variables
        ]
        factors = itertools.repeat(1.0)
        if self.layer_decay != 1:
            factors = depth_factors(variables, self.layer_decay)
        self._scales = [
            factor * self._scale_of.get(self._var_key(v), 1.0)
            for v, factor in zip(variables, factors, strict=False)
        ]

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        """Computes once, not for each variable, what `update_step` needs of the learning rate.

        These operations on scalars would be a third of an update, and of the time to trace it.
        """
        dtypes = sorted({_computed_in(variable) for variable in trainable_variables})
        rates = {dtype: self._rates(learning_rate, dtype) for dtype in dtypes}
        super()._backend_update_step(grads, trainable_variables, rates)

    def _rates(self, learning_rate, dtype):
        """The learning rate, and with bias corrections Adam's step size and its epsilon."""
        step, learning_rate = ops.cast(self.iterations + 1, dtype), ops.cast(learning_rate, dtype)
        # The second moment's correction is a scalar: it goes to the step size, not to the tensor.
        correction = ops.sqrt(_bias_correction(self.beta_2, step))
        step_size = learning_rate * correction / _bias_correction(self.beta_1, step)
        return learning_rate, step_size, self.epsilon * correction

    def update_step(self, gradient, variable, rates):
        dtype = _computed_in(variable)
        gradient = ops.cast(gradient, dtype)
        weight = ops.cast(variable, dtype)

        index = self._get_variable_index(variable)
        learning_rate, step_size, epsilon = rates[dtype]
        step_size = step_size * self._scales[index]  # not in place: all variables share it
        weight_decay = self.weight_decay if self.weight_decay and self._decays[index] else 0.0
        decay = learning_rate * (self._scales[index] * weight_decay)
        direction = self._adam_direction(index, gradient, epsilon)
        if len(variable.shape) < 2 or not self.delta:
            pull = decay
        else:
            projected, radial = project(
                gradient, weight, direction, self._channel_axes[index], self.delta, self.epsilon
            )
            pull = ops.where(projected, self.wd_ratio * decay, decay) - step_size * radial
        # Decay and projection are both multiples of the weight: one pass over it does for the two.
        self.assign(variable, (1 - pull) * weight - step_size * direction)

    def _adam_direction(self, index, gradient, epsilon):
        """Updates the moments; returns the direction of Adam's step, of the gradient's shape."""
        dtype = gradient.dtype
        first = ops.cast(self._momentums[index], dtype)
        second = ops.cast(self._velocities[index], dtype)
        first = self.beta_1 * first + (1 - self.beta_1) * gradient
        second = self.beta_2 * second + (1 - self.beta_2) * ops.square(gradient)
        self.assign(self._momentums[index], first)
        self.assign(self._velocities[index], second)

        if self.nesterov:
            first = self.beta_1 * first + (1 - self.beta_1) * gradient
        return first / (ops.sqrt(second) + epsilon)

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
            "decay_all": self.decay_all,
            "layer_decay": self.layer_decay,
        }


@keras.saving.register_keras_serializable(package="pit_keras")
class AdamW(AdamP):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019, arXiv 1711.05101).

    Unlike `keras.optimizers.AdamW` it has `decay_all` and `layer_decay`. `epsilon` is added after
    the bias correction, as in PyTorch.
    """

    def __init__(
        self, learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=0.0, **kwargs
    ):
        # AdamP that never projects.
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, delta=0.0, **kwargs)

    def get_config(self):
        projection = ("delta", "wd_ratio", "nesterov")
        return {k: value for k, value in super().get_config().items() if k not in projection}


def project(gradient, weight, direction, channel_axes, delta, epsilon):
    """Whether a weight looks scale-invariant, and the radial part of its step.

    Args:
        gradient, weight, direction: Tensors of one shape, of two or more dimensions.
        channel_axes: The axes of the rows of the channel view; the rest is flattened.

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


def _computed_in(variable):
    """The dtype that a variable is updated in: its own, but float32 at least."""
    return keras.backend.result_type(variable.dtype, "float32")


def _path(variable):
    """A variable's path; a `tf.Variable` has none and carries it in its name, "dense/kernel:0"."""
    return getattr(variable, "path", variable.name).split(":")[0]
