"""Distillation by `compile` and `fit`, on any backend."""

from typing import Literal

import keras
from keras import ops

from pit_keras.losses import hard_distillation, soft_distillation
from pit_keras.models.classifier import two_headed
from pit_keras.models.fit_checks import check_labels, watched


class Distiller(keras.Model):
    """DeiT's distillation (Touvron et al., arXiv 2012.12877) of a student with two heads.

    The class head learns from the labels with the compiled loss, the distillation head from the
    teacher, which sees the same images: `(1 - alpha) * loss + alpha * distillation`. Metrics and
    predictions are those of the student, the mean of its heads. `fit` trains the student itself;
    `save` writes the student alone, and the teacher is in no file.

    Args:
        student: A `_distilled` model of `create_model`, with logits.
        teacher: A model from the same images to logits of the same classes; it is frozen.
        kind: "hard", the teacher's class, or "soft", its probabilities at the temperature `tau`.
        alpha: The distillation's share of the loss.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        kind: Literal["hard", "soft"] = "hard",
        alpha: float = 0.5,
        tau: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if kind not in ("hard", "soft"):
            raise ValueError(f"kind must be 'hard' or 'soft'; got {kind!r}.")
        if tuple(teacher.output_shape) != tuple(student.output_shape):
            raise ValueError(
                f"The teacher gives {teacher.output_shape}, the student {student.output_shape}: "
                "both must give logits (None, classes) of the same classes."
            )
        if teacher.input_shape[1:] != student.input_shape[1:]:
            raise ValueError(
                f"The teacher takes images {teacher.input_shape[1:]}, the student "
                f"{student.input_shape[1:]}; create one with the other's input_shape."
            )
        self.student, self.kind, self.alpha, self.tau = student, kind, alpha, tau
        self._heads = two_headed(student)
        teacher.trainable = False
        self._teacher = lambda: teacher  # a function, as Keras would track and save a model
        self.built = True

    @property
    def non_trainable_variables(self):
        """With the teacher's, so that JAX does not compile its weights in as constants."""
        return [*super().non_trainable_variables, *self._teacher().variables]

    def call(self, images, training=False):
        return self._heads(images, training=True) if training else self.student(images)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if not isinstance(y_pred, (list, tuple)):  # in evaluation
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        logits, distilled = y_pred
        loss = super().compute_loss(x, y, logits, sample_weight, training)
        teacher = ops.stop_gradient(self._teacher()(x, training=False))
        if self.kind == "hard":
            losses = hard_distillation(teacher, distilled)
        else:
            losses = soft_distillation(teacher, distilled, self.tau)
        if sample_weight is not None:
            losses = losses * ops.cast(sample_weight, losses.dtype)
        return (1 - self.alpha) * loss + self.alpha * ops.mean(losses)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if isinstance(y_pred, (list, tuple)):  # both heads, in training
            y_pred = (y_pred[0] + y_pred[1]) / 2
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def fit(self, x=None, y=None, *args, **kwargs):
        check_labels(self, self.student.output_shape[-1], x, y)
        return super().fit(watched(x), y, *args, **kwargs)

    def save(self, filepath, **kwargs):
        """Saves the student, compiled or not as it is."""
        self.student.save(filepath, **kwargs)
