"""What differs between training a classifier and a detector; everything else is the `Trainer`'s.

A task (`ClassificationTask`, `DetectionTask`) has the methods

    freeze(model)               makes layers untrainable, as the configuration says
    learning_rate_scales(model) pairs (variable, factor) of the optimizer's learning rate
    graph_options()             a context in which TensorFlow traces reproducible functions
    uses_xla(model)             whether XLA compiles the step
    loss(model)                 the loss, created under the model's strategy
    check_train_batches, train_batches, evaluation_batches
    evaluator(model, workers)   a function of batches and `after_batch` that returns metrics
    results(metrics)            further fields of results.json

and the attributes `figures`, the names of its metrics, and `category_ids`, COCO's or None. A loss
has three methods, which each replica calls:

    totals(batch)               sums over the replica's share of an update; their sums over all
                                replicas divide the metrics
    given(batch)                tensors computed outside XLA and without a gradient
    loss(batch, given, totals)  metrics, `loss` among them: shares that add up, over the parts of an
                                update and over the replicas, to the update's means
"""

from pit_keras.data.coco import open_detection_source
from pit_keras.data.labelled_images import open_source, oriented
from pit_keras.training.classification_task import ClassificationTask
from pit_keras.training.detection_task import DetectionTask


def task_of(config, source):
    """The task of a configuration's model."""
    return (DetectionTask if config.model.is_detector else ClassificationTask)(config, source)


def open_source_of(config, manual_dir=None):
    """Opens the data set of a configuration, a `Source` or a `DetectionSource`."""
    data = config.data
    places = {"data_dir": data.data_dir, "manual_dir": manual_dir}
    if config.model.is_detector:
        source = open_detection_source(data.dataset, **places)
    else:
        source = open_source(data.dataset, holdout=data.held_out(data.dataset), **places)
    return oriented(source, data.apply_orientation)
