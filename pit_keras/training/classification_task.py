"""The task of a classifier, see `pit_keras.training.tasks`."""

import contextlib
from functools import partial

import tensorflow as tf
from keras import ops

from pit_keras.data.pipeline import check_train_batches, evaluation_batches, train_batches
from pit_keras.evaluation.classification import Evaluator, accuracy_interval
from pit_keras.losses import hard_distillation, soft_cross_entropy, soft_distillation
from pit_keras.models import two_headed
from pit_keras.runs.metric_names import classification_figures
from pit_keras.training.assembly import uses_xla
from pit_keras.training.fine_tuning import freeze
from pit_keras.training.teacher import load_teacher


class ClassificationTask:
    """Classification of images; while training, images may be mixtures of several classes."""

    category_ids = None
    graph_options = contextlib.nullcontext

    def __init__(self, config, source):
        self._config, self._source = config, source
        self.figures = classification_figures(len(source.class_names))
        by = config.training.best_metric
        if by not in (None, *self.figures.columns):
            raise ValueError(
                f"--config.training.best_metric={by} needs more than five classes, and "
                f"{source.name} has {len(source.class_names)}; take top1 or loss."
            )
        self.check_train_batches = partial(check_train_batches, source, config.data)
        self.train_batches = partial(train_batches, source, config.data)
        self.evaluation_batches = partial(evaluation_batches, source, "val", config.data)

    def freeze(self, model):
        freeze(model, self._config.model.frozen_stages)

    def learning_rate_scales(self, model):
        return []

    def uses_xla(self, model):
        return uses_xla(self._config.training.jit, self._config.training.precision, model)

    def loss(self, model):
        distils = self._config.distillation.kind != "none"
        teacher = load_teacher(self._config, self._source) if distils else None
        return ClassificationLoss(self._config, model, teacher)

    def evaluator(self, model, workers):
        return Evaluator(model, workers.strategy)

    def results(self, metrics):
        interval = accuracy_interval(metrics["top1"], metrics["images"])
        return {"top1_interval": interval, "eval_crop": self._config.data.eval_crop}


class ClassificationLoss:
    """Cross-entropy; with a teacher DeiT's objective, where `alpha` is the teacher's share.

    With a teacher, the class head learns from the mixed, smoothed labels and the distillation head
    from the teacher. Metrics: `loss`; `top1`, the share of images whose largest logit is the class
    with the largest share of the label; with a teacher also `class_loss` and `distillation_loss`.

    Args:
        model: With a teacher, a model with two heads.
        teacher: What `load_teacher` returns; None for no distillation.
    """

    def __init__(self, config, model, teacher=None):
        self._smoothing, self._distillation = config.training.label_smoothing, config.distillation
        self._images = config.training.images_of_update
        self._teacher = teacher
        self._model = model if teacher is None else two_headed(model)

    def totals(self, batch):
        return {}

    def given(self, batch):
        """The teacher's logits.

        XLA does not compile the teacher: its convolutions are slower than TensorFlow's on a CPU,
        and a SavedModel may hold operations that it cannot compile.
        """
        if self._teacher is None:
            return {}
        return {"teacher_logits": tf.stop_gradient(self._teacher(batch["image"]))}

    def __call__(self, batch, given, totals):
        labels, outputs = batch["label"], self._model(batch["image"], training=True)
        if self._teacher is None:
            logits = outputs
            losses = {"loss": soft_cross_entropy(labels, logits, self._smoothing)}
        else:
            logits = (outputs[0] + outputs[1]) / 2
            losses = self._distilled(labels, *outputs, given["teacher_logits"])
        hits = ops.argmax(logits, axis=-1) == ops.argmax(labels, axis=-1)
        of_images = {**losses, "top1": ops.cast(hits, "float32")}  # (B,) each
        return {name: ops.sum(values) / self._images for name, values in of_images.items()}

    def _distilled(self, labels, logits, distilled_logits, teacher_logits):
        alpha, tau = self._distillation.alpha, self._distillation.tau
        class_loss = soft_cross_entropy(labels, logits, self._smoothing)
        if self._distillation.kind == "hard":
            distillation_loss = hard_distillation(teacher_logits, distilled_logits)
        else:
            distillation_loss = soft_distillation(teacher_logits, distilled_logits, tau)
        return {
            "loss": (1 - alpha) * class_loss + alpha * distillation_loss,
            "class_loss": class_loss,
            "distillation_loss": distillation_loss,
        }
