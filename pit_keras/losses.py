"""Losses on logits (B, classes), one value per example (B,).

They are computed in float32; in float64 for logits in float64.
"""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="pit_keras")
def soft_cross_entropy(targets: Any, logits: Any, label_smoothing: float = 0.0) -> Any:
    """Cross-entropy of the targets' distributions and the logits'.

    Args:
        targets: (B, classes), distributions over the classes: one-hot, or mixed by CutMix or MixUp.
        label_smoothing: The share s, in [0, 1), of every target that is spread evenly over all
            classes: `(1 - s) * targets + s / classes`.
    """
    logits = _in_float32_or_better(logits)
    targets = ops.cast(targets, logits.dtype)
    targets = (1 - label_smoothing) * targets + label_smoothing / targets.shape[-1]
    # Not `keras.losses.categorical_crossentropy`: the gradient of TensorFlow's fused operation is
    # right only for targets that sum to one, which an all-zero row of padding does not.
    log_probabilities = ops.log_softmax(logits, axis=-1)
    return -ops.sum(targets * log_probabilities, axis=-1)  # (B, classes) -> (B,)


def hard_distillation(teacher_logits: Any, logits: Any) -> Any:
    """Cross-entropy of the class with the teacher's largest logit, unsmoothed.

    DeiT's "hard-label distillation" (Touvron et al., arXiv 2012.12877, section 4, equation 3).
    """
    targets = ops.one_hot(ops.argmax(teacher_logits, axis=-1), logits.shape[-1])
    return soft_cross_entropy(targets, logits)


def soft_distillation(teacher_logits: Any, logits: Any, tau: float) -> Any:
    """Kullback-Leibler divergence, student from teacher, at the temperature tau > 0, x tau^2.

    DeiT's equation 2, averaged over examples like all losses here. DeiT's code divides by all
    elements, examples x classes: its value is a thousandth of this one on ImageNet, so with its
    alpha the distillation hardly counts. To reproduce that code, choose an alpha that makes up for
    it.
    """
    teacher, student = (
        ops.log_softmax(_in_float32_or_better(values) / tau, axis=-1)
        for values in (teacher_logits, logits)
    )
    return tau**2 * ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)


def _in_float32_or_better(values):
    dtype = keras.backend.standardize_dtype(values.dtype)
    return ops.cast(values, keras.backend.result_type(dtype, "float32"))
