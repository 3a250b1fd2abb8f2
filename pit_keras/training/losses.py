"""Losses on logits, one value per example."""

import keras
from keras import ops


def soft_cross_entropy(targets, logits, label_smoothing=0.0):
    """Cross entropy between the targets' distributions and those of the logits.

    Args:
        targets: `(B, classes)`, distributions over the classes: one-hot, or mixtures of one-hot
            rows as CutMix and MixUp make them.
        logits: `(B, classes)`, of any float type; half precision is computed in float32.
        label_smoothing: the share s, in [0, 1), of every target that is spread evenly over all
            classes: `(1 - s) * targets + s / classes`.

    Returns:
        `(B,)`, float32; float64 for logits in float64.

    Raises:
        ValueError: if the shapes are not these or `label_smoothing` is out of its range.
    """
    if len(targets.shape) != 2 or len(logits.shape) != 2 or targets.shape[1] != logits.shape[1]:
        raise ValueError(
            f"Targets and logits must both be (batch, classes), "
            f"got {tuple(targets.shape)} and {tuple(logits.shape)}."
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing!r}.")
    logits = _in_float32_or_better(logits)
    targets = ops.cast(targets, logits.dtype)
    targets = (1 - label_smoothing) * targets + label_smoothing / targets.shape[-1]
    # Not `keras.losses.categorical_crossentropy`: the gradient of TensorFlow's fused operation is
    # right only for targets that sum to one, which an all-zero row of padding does not.
    log_probabilities = ops.log_softmax(logits, axis=-1)
    return -ops.sum(targets * log_probabilities, axis=-1)  # (B, classes) -> (B,)


def hard_distillation(teacher_logits, logits):
    """Cross entropy of the class that the teacher gives the largest logit, unsmoothed.

    "Hard-label distillation" of DeiT (Touvron et al., arXiv 2012.12877, section 4, equation 3).

    Args:
        teacher_logits, logits: `(B, classes)`.

    Returns:
        `(B,)`, as in `soft_cross_entropy`.

    Raises:
        ValueError: if the shapes are not these.
    """
    _check_same_classes(teacher_logits, logits)
    targets = ops.one_hot(ops.argmax(teacher_logits, axis=-1), logits.shape[-1])
    return soft_cross_entropy(targets, logits)


def soft_distillation(teacher_logits, logits, tau):
    """Kullback-Leibler divergence of the softened distributions, student from teacher, x tau^2.

    DeiT's equation 2. It is averaged over examples, as the divergence is defined and as all other
    losses here are. DeiT's code divides by all elements, examples x classes: its value is this one
    divided by the number of classes, a thousandth on ImageNet, so that with its alpha the
    distillation hardly counts. To reproduce that code, give an alpha that makes up for it.

    Args:
        teacher_logits, logits: `(B, classes)`.
        tau: temperature, positive.

    Returns:
        `(B,)`, as in `soft_cross_entropy`.

    Raises:
        ValueError: if the shapes are not these or `tau` is not positive.
    """
    _check_same_classes(teacher_logits, logits)
    if not tau > 0:
        raise ValueError(f"The temperature tau must be positive, got {tau!r}.")
    teacher, student = (
        ops.log_softmax(_in_float32_or_better(values) / tau, axis=-1)
        for values in (teacher_logits, logits)
    )
    return tau**2 * ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)


def _in_float32_or_better(values):
    dtype = keras.backend.standardize_dtype(values.dtype)
    return ops.cast(values, keras.backend.result_type(dtype, "float32"))


def _check_same_classes(teacher_logits, logits):
    shapes = tuple(teacher_logits.shape), tuple(logits.shape)
    if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            "The teacher's logits and the student's must both be (batch, classes), "
            "got {} and {}.".format(*shapes)
        )
