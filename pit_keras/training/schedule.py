"""The learning rate as a function of the training step."""

import math

import keras
from keras import ops


def scaled_learning_rate(base, batch_size, scaled_from=512):
    """The linear scaling rule of DeiT and PiT: `base` is the rate for a batch of 512.

    Args:
        base: learning rate for `scaled_from` images per step.
        batch_size: images per step, summed over all replicas.
        scaled_from: see `base`; None where the rate is `base` for any batch, as DETR's.
    """
    return base if scaled_from is None else base * batch_size / scaled_from


def warmup_cosine(step, *, base, steps, warmup_steps, warmup_start=1e-6, minimum=1e-5):
    """Linear warm-up, then a cosine over all `steps`.

    The cosine is not shifted by the warm-up: it runs over all `steps` from step 0, so that at the
    end of the warm-up the rate is a little below `base`, where the cosine has got to by then. That
    is timm's default, with which PiT was trained; but timm sets the rate once per epoch, whereas
    this is a function of the step: the two agree at the start of every epoch.

    `warmup_start` and `minimum` are absolute. Where a small batch scales `base` below one of them,
    that one is lowered to `base`: the rate never exceeds `base`, and never rises after the warm-up.

    Args:
        step: steps done so far: a number, an array or a tensor of any shape.
        base: the peak rate; positive.
        steps: length of the training; from there on the rate is `minimum`.
        warmup_steps: length of the warm-up, less than `steps`; 0 for none.
        warmup_start: rate at step 0, where there is a warm-up.
        minimum: rate at the end.

    Returns:
        A float32 tensor of the shape of `step`.

    Raises:
        ValueError: if a rate or a number of steps is out of its range.
    """
    _check(base, steps, warmup_steps, warmup_start, minimum)
    warmup_start, minimum = min(warmup_start, base), min(minimum, base)
    step = ops.convert_to_tensor(step, dtype="float32")
    warmup = warmup_start + (base - warmup_start) * step / max(warmup_steps, 1)
    progress = ops.minimum(step / steps, 1.0)
    cosine = minimum + (base - minimum) * 0.5 * (1.0 + ops.cos(math.pi * progress))
    return ops.where(step < warmup_steps, warmup, cosine)


def warmup_drop(step, *, base, steps, warmup_steps, warmup_start=1e-6, drop_at=2 / 3):
    """Linear warm-up, then `base`, and from a share of the `steps` on a tenth of it: DETR's.

    Args:
        step, base, steps, warmup_steps, warmup_start: as for `warmup_cosine`.
        drop_at: share of the steps after which the rate is a tenth; 1 for none.

    Returns:
        A float32 tensor of the shape of `step`.

    Raises:
        ValueError: if a rate, a number of steps or the share is out of its range.
    """
    _check(base, steps, warmup_steps, warmup_start)
    _check_share(drop_at)
    warmup_start = min(warmup_start, base)
    step = ops.convert_to_tensor(step, dtype="float32")
    warmup = warmup_start + (base - warmup_start) * step / max(warmup_steps, 1)
    after = ops.where(step < round(drop_at * steps), base, base / 10)
    return ops.where(step < warmup_steps, warmup, after)


@keras.saving.register_keras_serializable(package="pit_keras")
class WarmupDrop(keras.optimizers.schedules.LearningRateSchedule):
    """`warmup_drop` as a schedule for a Keras optimizer; its arguments are the attributes.

    Raises:
        ValueError: if a rate, a number of steps or the share is out of its range.
    """

    def __init__(self, base, steps, warmup_steps, warmup_start=1e-6, drop_at=2 / 3):
        _check(base, steps, warmup_steps, warmup_start)
        _check_share(drop_at)
        self.base = base
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.warmup_start = warmup_start
        self.drop_at = drop_at

    def __call__(self, step):
        return warmup_drop(step, **self.get_config())

    def get_config(self):
        return {
            "base": self.base,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "warmup_start": self.warmup_start,
            "drop_at": self.drop_at,
        }


@keras.saving.register_keras_serializable(package="pit_keras")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """`warmup_cosine` as a schedule for a Keras optimizer; its arguments are the attributes.

    Raises:
        ValueError: if a rate or a number of steps is out of its range.
    """

    def __init__(self, base, steps, warmup_steps, warmup_start=1e-6, minimum=1e-5):
        _check(base, steps, warmup_steps, warmup_start, minimum)
        self.base = base
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.warmup_start = warmup_start
        self.minimum = minimum

    def __call__(self, step):
        return warmup_cosine(step, **self.get_config())

    def get_config(self):
        return {
            "base": self.base,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "warmup_start": self.warmup_start,
            "minimum": self.minimum,
        }


def _check(base, steps, warmup_steps, warmup_start, minimum=0.0):
    if not base > 0:
        raise ValueError(f"The base learning rate must be positive, got {base!r}.")
    if not steps >= 1:
        raise ValueError(f"The schedule must have at least one step, got steps={steps!r}.")
    if not 0 <= warmup_steps < steps:
        raise ValueError(
            f"The warm-up must be shorter than the training's {steps} steps and not negative, "
            f"got warmup_steps={warmup_steps!r}."
        )
    for name, rate in (("warmup_start", warmup_start), ("minimum", minimum)):
        if not rate >= 0:
            raise ValueError(f"The learning rate {name} must not be negative, got {rate!r}.")


def _check_share(drop_at):
    if not 0 < drop_at <= 1:
        raise ValueError(f"The share drop_at must be in (0, 1], got {drop_at!r}.")
