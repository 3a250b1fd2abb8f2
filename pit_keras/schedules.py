"""The learning rate as a function of the training step."""

import math

import keras
from keras import ops


def scaled_learning_rate(base, batch_size, scaled_from=512):
    """The linear scaling rule of DeiT and PiT: `base` is the rate for a batch of 512 images.

    The batch is that of all replicas. `scaled_from=None` keeps `base` for any batch, as DETR does.
    """
    return base if scaled_from is None else base * batch_size / scaled_from


class _WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up to `peak`, then what `_after(step)` returns."""

    def __init__(self, peak, steps, warmup_steps, start):
        self.peak = peak
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.start = start

    def __call__(self, step):
        step = ops.convert_to_tensor(step, dtype="float32")
        start = min(self.start, self.peak)
        warmup = start + (self.peak - start) * step / max(self.warmup_steps, 1)
        return ops.where(step < self.warmup_steps, warmup, self._after(step))

    def get_config(self):
        return dict(vars(self))  # the arguments


@keras.saving.register_keras_serializable(package="pit_keras")
class WarmUpCosine(_WarmUp):
    """Linear warm-up, then a cosine over all `steps`.

    The cosine is not shifted by the warm-up: it runs over all `steps` from step 0, so the warm-up
    ends a little below `peak`, where the cosine is by then. That is timm's default, with which PiT
    was trained; timm sets the rate once per epoch, so the two agree at the start of every epoch.

    Args:
        peak: The highest rate. Where a small batch scales it below `start` or `minimum`, that one
            is lowered to `peak`: the rate never rises after the warm-up.
        steps: Length of the training; from there on the rate is `minimum`.
        warmup_steps: Less than `steps`; 0 for no warm-up.
        start: The rate at step 0.
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        warmup_steps: int = 0,
        start: float = 1e-6,
        minimum: float = 1e-5,
    ):
        super().__init__(peak, steps, warmup_steps, start)
        self.minimum = minimum

    def _after(self, step):
        minimum, steps = min(self.minimum, self.peak), self.steps
        progress = ops.minimum(step / steps, 1.0)
        return minimum + (self.peak - minimum) * 0.5 * (1.0 + ops.cos(math.pi * progress))


@keras.saving.register_keras_serializable(package="pit_keras")
class WarmUpDrop(_WarmUp):
    """DETR's: linear warm-up, then `peak`, and a tenth of it after `drop_at`.

    Args:
        peak, steps, warmup_steps, start: As for `WarmUpCosine`.
        drop_at: The share of the steps before the drop; 1 for no drop.
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        warmup_steps: int = 0,
        start: float = 1e-6,
        drop_at: float = 2 / 3,
    ):
        super().__init__(peak, steps, warmup_steps, start)
        self.drop_at = drop_at

    def _after(self, step):
        return ops.where(step < round(self.drop_at * self.steps), self.peak, self.peak / 10)
