"""The task of a detector, see `pit_keras.training.tasks`."""

import contextlib
import logging
from functools import partial

import keras
import tensorflow as tf

from pit_keras.data.detection_pipeline import (
    detection_evaluation_batches,
    detection_train_batches,
)
from pit_keras.data.pipeline import check_train_batches
from pit_keras.evaluation.detection import DetectionEvaluator
from pit_keras.models import variant_of
from pit_keras.models.detr import backbone_layers, masked_detector
from pit_keras.runs.metric_names import DETECTION
from pit_keras.training.detection_loss import detection_losses, loss_totals
from pit_keras.training.fine_tuning import freeze
from pit_keras.training.matching import match

logger = logging.getLogger(__name__)


class DetectionTask:
    """Detection of objects in images, as in published DETR."""

    figures = DETECTION

    def __init__(self, config, source):
        self._config, self._source = config, source
        self.category_ids = source.category_ids
        data, detection = config.data, config.detection
        self.check_train_batches = partial(check_train_batches, source, data)
        self.train_batches = partial(detection_train_batches, source, data, detection)
        self.evaluation_batches = partial(detection_evaluation_batches, source, "val", data)
        queries = config.model.queries or variant_of(config.model.name).queries
        most = source.most_objects()
        if most is not None and most > queries:
            logger.warning(
                f"An image has {most} objects, but the model finds at most {queries}; raise "
                "--config.model.queries."
            )

    def freeze(self, model):
        """Freezes the first stages of the backbone, and its BatchNormalization if it is pretrained.

        The statistics of a few padded images are worse than those of pretraining.
        """
        settings, freeze_norms = self._config.model, self._config.detection.freeze_norms
        freeze(model, settings.frozen_stages)
        if settings.weights is not None if freeze_norms is None else freeze_norms:
            for layer in model.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False

    def learning_rate_scales(self, model):
        rate = self._config.detection.backbone_rate
        return [
            (variable, rate)
            for layer in backbone_layers(model)
            for variable in layer.trainable_variables
        ]

    @contextlib.contextmanager
    def graph_options(self):
        """Makes a step give the same bits each time.

        Many gradients meet in what the decoder layers share. TensorFlow's arithmetic optimisation
        joins their sums into one, which adds in whatever order memory becomes free.
        """
        name = "arithmetic_optimization"
        before = tf.config.optimizer.get_experimental_options().get(name, True)
        tf.config.optimizer.set_experimental_options({name: False})
        try:
            yield
        finally:
            tf.config.optimizer.set_experimental_options({name: before})

    def uses_xla(self, model):
        return False  # SciPy matches objects within a step

    def loss(self, model):
        return DetectionLoss(self._config, model)

    def evaluator(self, model, workers):
        evaluate = DetectionEvaluator(model, self._source, "val", workers.strategy)
        return lambda batches, after_batch: evaluate(batches, after_batch)[0]

    def results(self, metrics):
        return {"image_size": list(self._config.data.image_size)}


class DetectionLoss:
    """The losses of `detection_losses` after every decoder layer."""

    def __init__(self, config, model):
        self._settings = config.detection
        self._model = masked_detector(model)
        self._queries = model.output["logits"].shape[1]

    def totals(self, batch):
        return loss_totals(batch["labels"], self._queries, self._settings.no_object_weight)

    def given(self, batch):
        return {}

    def __call__(self, batch, given, totals):
        inputs = {"images": batch["image"], "padding_mask": batch["padding_mask"]}
        outputs = self._model(inputs, training=True)
        targets = {"boxes": batch["boxes"], "labels": batch["labels"]}
        matches = match(outputs["logits"], outputs["boxes"], targets["boxes"], targets["labels"])
        return detection_losses(
            outputs,
            targets,
            matches,
            **totals,
            no_object_weight=self._settings.no_object_weight,
            l1_weight=self._settings.l1_weight,
            giou_weight=self._settings.giou_weight,
        )
