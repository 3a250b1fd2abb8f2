"""An exponential moving average of a model's weights, as DeiT and PiT keep one (decay 0.99996)."""

import contextlib

import keras
from keras import ops


def decay_after(updates, decay):
    """The decay of the next update: `min(decay, (1 + updates) / (10 + updates))`.

    A constant decay of 0.99996 remembers 25,000 steps, so a run of a few thousand would mostly
    average its initial weights. With this warm-up (as in TensorFlow's `ExponentialMovingAverage`)
    the average covers a tenth of the steps done, until `decay` is reached.
    """
    updates = ops.cast(updates, "float32")
    return ops.minimum(decay, (1.0 + updates) / (10.0 + updates))


class WeightAverage:
    """The moving average of all weights of a model, BatchNormalization's statistics included.

    Keras' own (`use_ema` of an optimizer) averages the trainable weights only, which would combine
    averaged kernels with statistics of other kernels. Create it under the model's strategy. Its
    `variables`, in the order of `model.weights`, start as the weights.
    """

    def __init__(self, model, decay):
        self._weights, self._decay = list(model.weights), decay
        # As arrays: a Keras variable made from a TensorFlow one adopts it instead of copying it.
        self.variables = [
            keras.Variable(ops.convert_to_numpy(weight), dtype=weight.dtype, trainable=False)
            for weight in self._weights
        ]

    def update(self, updates, strategy):
        """Moves the averages towards the weights, after an update that follows `updates` others.

        Call it outside `strategy.run`: replicas share one average.
        """
        share = 1.0 - decay_after(updates, self._decay)

        def move(average, weight):
            step = ops.cast(share, average.dtype) * (average - weight)
            return average.assign_sub(step)

        for average, weight in zip(self.variables, self._weights, strict=True):
            strategy.extended.update(average.value, move, args=(weight.value,))

    @contextlib.contextmanager
    def in_place(self):
        """A context in which the model's weights are the averages."""
        kept = [(weight, ops.convert_to_numpy(weight)) for weight in self._weights]
        for weight, average in zip(self._weights, self.variables, strict=True):
            weight.assign(average)
        try:
            yield
        finally:
            for weight, value in kept:
                weight.assign(value)
