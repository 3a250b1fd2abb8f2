"""What is particular to training a detector, see `pit_keras.training.tasks`."""

import contextlib
import logging

import keras
import tensorflow as tf

from pit_keras.data.detection_pipeline import (
    check_detection_train_batches,
    detection_evaluation_batches,
    detection_train_batches,
)
from pit_keras.evaluation.detection import DetectionEvaluator
from pit_keras.models import variant_of
from pit_keras.models.detr import backbone_layers, masked_detector
from pit_keras.runs.metric_names import DETECTION
from pit_keras.training.assembly import model_of
from pit_keras.training.detection_loss import box_total, class_weight_total, detection_losses
from pit_keras.training.fine_tuning import freeze
from pit_keras.training.matching import match

logger = logging.getLogger(__name__)


class DetectionTask:
    """Finding objects in images, as published DETR does.

    Args:
        config: A `Config` of a detector.
        source: What `pit_keras.data.coco.open_detection_source` returns.
    """

    figures = DETECTION

    def __init__(self, config, source):
        self._config, self._source = config, source
        self.category_ids = source.category_ids
        queries = config.model.queries or variant_of(config.model.name).queries
        most = source.most_objects()
        if most is not None and most > queries:
            logger.warning(
                "There are images with up to %d objects, of which a model with %d queries finds, "
                "and is trained on, %d at most; --config.model.queries sets their number.",
                most,
                queries,
                queries,
            )

    def model(self, weights=None):
        """A detector for images of any size: training sees many."""
        return model_of(self._config, self._source, weights)

    def freeze(self, model):
        """Makes untrainable what the configuration keeps as it is: the first stages of the
        backbone, and its BatchNormalization, which then has the statistics of pretraining: a
        batch of a few images, padded ones, has worse.
        """
        settings, freeze_norms = self._config.model, self._config.detection.freeze_norms
        freeze(model, settings.frozen_stages)
        if settings.weights is not None if freeze_norms is None else freeze_norms:
            for layer in model.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False

    def learning_rate_scales(self, model):
        """Pairs (variable, factor): the backbone learns more slowly."""
        rate = self._config.detection.backbone_rate
        return [
            (variable, rate)
            for layer in backbone_layers(model)
            for variable in layer.trainable_variables
        ]

    @contextlib.contextmanager
    def graph_options(self):
        """Within it functions are traced so that a step gives the same bits each time.

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
        """No: objects are matched in the midst of a step, by SciPy."""
        return False

    def loss(self, model):
        """The `DetectionLoss` of the run. Call it under the model's strategy."""
        return DetectionLoss(self._config, model)

    def check_train_batches(self, batch_size, replicas):
        """See `pit_keras.data.detection_pipeline`; so for the next two."""
        check_detection_train_batches(*self._of_train(), batch_size, replicas)

    def train_batches(self, **options):
        return detection_train_batches(*self._of_train(), **options)

    def evaluation_batches(self, **options):
        return detection_evaluation_batches(self._source, "val", self._config.data, **options)

    def _of_train(self):
        return self._source, self._config.data, self._config.detection

    def evaluator(self, model, workers):
        """A function of evaluation batches and `after_batch` that gives the figures."""
        evaluate = DetectionEvaluator(model, self._source, "val", workers.strategy)

        def figures(batches, after_batch):
            return evaluate(batches, after_batch)[0]

        return figures

    def rank(self, figures):
        """The better of two evaluations has the higher AP; none counts as zero."""
        return (figures["AP"] or 0.0,)

    def settings(self):
        """What `results.json` says of how its figures were measured."""
        return {"image_size": list(self._config.data.image_size)}


class DetectionLoss:
    """Cross-entropy, L1 and GIoU of matched boxes after every decoder layer, see `detection_loss`.

    Its scalars are those of `detection_losses`.

    Args:
        config: A `Config`.
        model: A detector.
    """

    def __init__(self, config, model):
        self._settings = config.detection
        self._model = masked_detector(model)
        self._queries = model.output["logits"].shape[1]

    def totals(self, batch):
        """What losses are divided by: the boxes, and the weights of all queries' classes."""
        labels = batch["labels"]
        return {
            "box_total": box_total(labels),
            "class_weight_total": class_weight_total(
                labels, self._queries, self._settings.no_object_weight
            ),
        }

    def given(self, batch):
        """Nothing: what is matched depends on what the model answers."""
        return {}

    def __call__(self, batch, given, totals):
        """Scalars of a batch of `image`, `padding_mask`, `boxes` and `labels`."""
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
