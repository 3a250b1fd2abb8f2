"""A model's predictions of every image of a split, and what can be counted from them.

Only numbers are kept, some 30 bytes per image, so ImageNet fits into memory.
"""

import collections
import dataclasses

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from pit_keras.evaluation.classification import evaluate_source, part_sizes, recorded_counts

CALIBRATION_BINS = 15  # as in Guo et al., ICML 2017

_COLUMNS = ("label", "predicted", "probability", "loss")


@dataclasses.dataclass(frozen=True)
class Predictions:
    """One entry for each image, in the order of evaluation."""

    split: np.ndarray  # (N,) "train" or "val"
    position: np.ndarray  # (N,) the image's place in `Source.scan` of its split
    label: np.ndarray  # (N,) the true class
    predicted: np.ndarray  # (N,) the likeliest class
    probability: np.ndarray  # (N,) that of the likeliest class
    loss: np.ndarray  # (N,) cross-entropy; exp(-loss) is the probability of the true class
    classes: int

    def __len__(self):
        return len(self.label)

    @property
    def is_wrong(self):
        """(N,) bool."""
        return self.predicted != self.label

    def worst(self, count):
        """Indices of the mistakes with the highest loss, at most `count`, the worst first."""
        wrong = np.flatnonzero(self.is_wrong)
        return wrong[np.argsort(-self.loss[wrong], kind="stable")[:count]]

    def confusion(self):
        """Images by true class (row) and predicted class (column), int64 (classes, classes)."""
        return confusion_matrix(self.label, self.predicted, labels=np.arange(self.classes))

    def confused_pairs(self, count):
        """At most `count` of (true class, predicted class, images), most images first.

        Needs no confusion matrix, which is large for many classes.
        """
        labels, predicted = self.label[self.is_wrong], self.predicted[self.is_wrong]
        pairs = collections.Counter(zip(labels.tolist(), predicted.tolist(), strict=True))
        ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
        return [(*pair, images) for pair, images in ordered[:count]]

    def per_class(self):
        """`precision`, `recall`, `f1` and `images` of each class, each (classes,).

        NaN where nothing is counted: recall without images, precision without predictions.
        """
        # Not scikit-learn's number of images, which is None where every prediction is wrong.
        precision, recall, f1, _ = precision_recall_fscore_support(
            self.label, self.predicted, labels=np.arange(self.classes), zero_division=np.nan
        )
        images = np.bincount(self.label, minlength=self.classes)
        return {"precision": precision, "recall": recall, "f1": f1, "images": images}

    def calibration(self):
        """The `Calibration` over `CALIBRATION_BINS` equal intervals (a, b] of the probability.

        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
        """
        edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
        bins = np.clip(np.searchsorted(edges, self.probability) - 1, 0, CALIBRATION_BINS - 1)
        images = np.bincount(bins, minlength=CALIBRATION_BINS)
        confident = np.bincount(bins, self.probability, CALIBRATION_BINS)
        right = np.bincount(bins, ~self.is_wrong, CALIBRATION_BINS)
        with np.errstate(invalid="ignore"):  # of an empty bin
            confidence, accuracy = confident / images, right / images
        error = float(np.abs(right - confident).sum() / len(self))
        return Calibration(images, confidence, accuracy, error)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How probabilities compare with frequencies."""

    images: np.ndarray  # (bins,) images whose probability lies in each interval
    confidence: np.ndarray  # (bins,) their mean probability; NaN for none
    accuracy: np.ndarray  # (bins,) the share of correct ones; NaN for none
    error: float  # expected calibration error: the mean of |accuracy - confidence| over the images


def evaluate_each(trained, source, split="val", **arguments):
    """`evaluate_source`: its results, and the `Predictions` that they count."""
    parts = []

    def record(scores):
        parts.append([scores[name] for name in _COLUMNS])

    results = evaluate_source(
        trained, source, split, **arguments, counts=recorded_counts, record=record
    )
    sizes = part_sizes(source, split)
    predictions = Predictions(
        np.repeat(list(sizes), list(sizes.values())),
        np.concatenate([np.arange(size) for size in sizes.values()]),
        *(np.concatenate(values) for values in zip(*parts, strict=True)),
        classes=len(trained.class_names),
    )
    return results, predictions
