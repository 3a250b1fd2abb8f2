"""The metrics of each kind of model: their names in files, and how a person reads them."""

import dataclasses
import math

from pit_keras.config.fields import CLASSIFIERS_METRICS, DETECTORS_METRICS


@dataclasses.dataclass(frozen=True)
class Figures:
    """The metrics of a task; each dict is {name in files: name for a person}."""

    training: dict[str, str]  # shown while a run trains
    validation: dict[str, str]
    columns: tuple[str, ...]  # of an evaluation, after `val_` and `val_averaged_` in `history.csv`
    best: str  # chooses the best epoch, unless the configuration has another
    ties: str  # chooses among equals
    results: dict[str, str]  # printed for a finished run

    def rank(self, metrics, by=None):
        """A list that is the larger, the better an evaluation is by one of `columns`.

        Equals are told apart by the loss, or by the metric that usually counts.
        """
        values = [metrics[by or self.best], metrics[self.ties]]
        signs = [-1 if name == "loss" else 1 for name in (by or self.best, self.ties)]
        values = [sign * (value or 0.0) for sign, value in zip(signs, values, strict=True)]
        return [-math.inf if math.isnan(value) else value for value in values]


CLASSIFICATION = Figures(
    training={"loss": "loss", "top1": "top-1"},
    validation={"loss": "loss", "top1": "top-1"},
    columns=CLASSIFIERS_METRICS,
    best="top1",
    ties="loss",
    results={"top1": "top-1", "top5": "top-5"},
)


def has_top5(classes):
    """Whether so many classes can be wrong among the first five."""
    return classes > 5


def classification_figures(classes):
    """The metrics of a classifier of so many classes."""
    if has_top5(classes):
        return CLASSIFICATION
    columns = tuple(name for name in CLASSIFICATION.columns if name != "top5")
    return dataclasses.replace(CLASSIFICATION, columns=columns, results={"top1": "top-1"})


# COCO's own names; None, and nothing in `history.csv`, where the data has no object of the kind.
DETECTION = Figures(
    training={"loss": "loss", "class_loss": "class", "l1_loss": "L1", "giou_loss": "GIoU"},
    validation={"AP": "AP", "AP50": "AP50", "AP75": "AP75"},
    columns=DETECTORS_METRICS,
    best="AP",
    ties="AP",
    results={"AP": "AP", "AP50": "AP50", "AP75": "AP75"},
)


def in_words(names, values, digits, between, prefix=""):
    """Metrics as a person reads them, `loss 1.500  top-1 0.250`.

    `names` are {name in files: name for a person}, `values` {prefix + name in files: number}.
    """
    return between.join(
        f"{name} {number(values[prefix + column], digits)}" for column, name in names.items()
    )


def number(value, digits=4):
    """`0.1234`; a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"
