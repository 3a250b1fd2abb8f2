"""What differs between training a classifier and a detector; everything else is the `Trainer`'s.

A task (`ClassificationTask`, `DetectionTask`) has the methods

    model(weights)              the network, starting from weights or not
    freeze(model)               makes untrainable what the run keeps as it is
    learning_rate_scales(model) the rates that differ from the optimizer's
    graph_options()             a context in which TensorFlow traces what is to be exactly repeated
    uses_xla(model)             whether XLA compiles the step
    loss(model)                 what the step learns from
    check_train_batches, train_batches, evaluation_batches
    evaluator(model, workers)   batches -> figures
    rank(figures)               of evaluations the one with the largest is the best; first of it
                                stands the number that a run remembers as its best
    settings()                  what results.json says beside the figures

and `figures`, their names, and `category_ids`, those of COCO's form or None. Of a loss the step
asks three things, for each replica:

    totals(batch)               sums over the replica's share of an update; those over all replicas
                                are what its scalars are divided by
    given(batch)                tensors that are computed outside of XLA and without a gradient
    loss(batch, given, totals)  scalars, `loss` among them: shares that add up, over the parts of an
                                update and over the replicas, to the update's means
"""

from pit_keras.data.coco import open_detection_source
from pit_keras.data.labelled_images import open_source
from pit_keras.training.classification_task import ClassificationTask
from pit_keras.training.detection_task import DetectionTask


def task_of(config, source):
    """The task of a configuration, told by its model's name.

    Args:
        config: A `Config`.
        source: The data, see `open_source_of`.
    """
    return (DetectionTask if config.model.is_detector else ClassificationTask)(config, source)


def open_source_of(config, manual_dir=None):
    """Opens the data set of a configuration, a `Source` or a `DetectionSource`.

    Args:
        config: A `Config`.
        manual_dir: See `open_source`.

    Raises:
        ValueError, OSError: See there and at `open_detection_source`.
    """
    data = config.data
    places = {"data_dir": data.data_dir, "manual_dir": manual_dir}
    if config.model.is_detector:
        return open_detection_source(data.dataset, **places)
    return open_source(data.dataset, holdout=data.holdout, **places)
