"""Whether an exported model computes what the Keras model does: on which images, and how fast."""

import dataclasses
import time
from typing import ClassVar

import numpy as np
import tensorflow as tf

from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.export.formats import TOLERANCE
from pit_keras.runs.found_objects import THRESHOLD

MOST_PHOTOGRAPHS = 32
# Two objects are the same if no side differs by more than this share of the image, and the scores
# by no more than that.
SAME_BOX = 0.02
SAME_SCORE = 0.1
_WARM_UP_CALLS, _CALLS = 3, 30


@dataclasses.dataclass(frozen=True)
class Sample:
    """Images to compare or calibrate an exported model on.

    `crops` are uint8 (N, H, W, 3) of the model's own size, cut out as in evaluation. `photographs`
    are the first `MOST_PHOTOGRAPHS` as they came; more would not fit into memory. `origin` says in
    the report what the images are.
    """

    crops: np.ndarray
    photographs: list[np.ndarray]
    origin: str

    def __len__(self):
        return len(self.crops)


def take_sample(images, data, origin):
    """The `Sample` of uint8 images (h, w, 3) of any sizes, cropped as a `DataConfig` says."""
    crops, photographs = [], []
    for image in images:
        crop = resize_and_crop(image, data.image_size, data.eval_crop)
        crops.append(tf.cast(crop, tf.uint8).numpy())  # whole levels: nothing is lost
        if len(photographs) < MOST_PHOTOGRAPHS:
            photographs.append(image)
    if not crops:
        raise ValueError("There are no images to compare the exported model with.")
    return Sample(np.stack(crops), photographs, origin)


def validation_images(source, count):
    """At most `count` images, evenly spread over a source's validation split."""
    every = max(1, source.sizes["val"] // count)
    return _loaded(source, source.scan("val").shard(every, 0), count)


def training_images(source, count):
    """At most `count` images of a source's training split, at random but always the same."""
    once = source.train_stream(seed=0).take(source.sizes["train"])
    return _loaded(source, once, count)


def _loaded(source, examples, count):
    """The pixels, uint8 (H, W, 3), without images that cannot be read."""
    images = examples.map(lambda example: source.load(example["image"])).ignore_errors()
    return (image.numpy() for image in images.take(count))


def real_images():
    """Eight pieces of scikit-learn's two photographs: uint8 (H, W, 3), wide, high and small."""
    from sklearn.datasets import load_sample_images  # takes a second to import

    windows = [
        (slice(0, 427), slice(0, 640)),
        (slice(0, 427), slice(107, 534)),
        (slice(20, 420), slice(250, 487)),
        (slice(190, 300), slice(280, 443)),
    ]
    photographs = load_sample_images().images  # each (427, 640, 3)
    return [photograph[window] for photograph in photographs for window in windows]


class _Differences:
    """What both kinds of agreement have; `cells` are the report's texts under `HEADINGS`."""

    @property
    def finite(self):
        """Whether the numbers of both models are."""
        return bool(np.isfinite(dataclasses.astuple(self)).all())

    def shortfall(self, min_agreement):
        """How it misses a limit; None stands for `within`."""
        if not self.finite:
            return "its numbers, or the Keras model's, are not finite"
        if min_agreement is None:
            figures = ", ".join(map(" ".join, zip(self.HEADINGS, self.cells, strict=True)))
            return f"{figures}; an error of {TOLERANCE * self.scale:.1e} is allowed"
        return (
            f"the same for {self.share:.1%}, while {min_agreement:.1%} of the {self.ANSWERS} must "
            "be the same"
        )


@dataclasses.dataclass(frozen=True)
class Agreement(_Differences):
    """How the logits of two classifiers differ.

    `max_difference` and `mean_difference` are absolute, `scale` is the Keras model's largest
    absolute logit, and `top1_agreement` the share of images, 0..1, with the same top-1 class.
    """

    HEADINGS: ClassVar = ("largest error", "mean error", "same top-1", "images")
    ANSWERS: ClassVar = "likeliest classes"

    max_difference: float
    mean_difference: float
    scale: float
    top1_agreement: float
    images: int

    @property
    def share(self):
        return self.top1_agreement

    @property
    def cells(self):
        errors = f"{self.max_difference:.1e}", f"{self.mean_difference:.1e}"
        return (*errors, f"{self.top1_agreement:.1%}", f"{self.images:,}")

    def within(self, tolerance=TOLERANCE):
        """Whether the largest difference is at most `tolerance` of the largest logit."""
        # False for NaN and infinity too.
        return self.max_difference <= tolerance * self.scale < np.inf


def compare(expected, actual):
    """The `Agreement` of two arrays of logits, both (N, classes)."""
    expected, actual = np.stack([expected, actual])  # an error for other shapes
    with np.errstate(invalid="ignore"):  # inf - inf
        differences = np.abs(expected - actual)
    return Agreement(
        max_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        scale=float(np.abs(expected).max()),
        top1_agreement=float(np.mean(expected.argmax(axis=-1) == actual.argmax(axis=-1))),
        images=len(expected),
    )


@dataclasses.dataclass(frozen=True)
class DetectionAgreement(_Differences):
    """How the answers of two detectors differ, query by query.

    `score_difference` and `box_difference`, of a side as a share of the image's, are the largest
    absolute ones. `objects` counts what either found with a score of `THRESHOLD` or more, and
    `same_objects` is the share of them, 0..1, that both find: of the same class, with sides within
    `SAME_BOX` and a score within `SAME_SCORE`. It is 1 if there are no objects.
    """

    HEADINGS: ClassVar = ("score error", "box error", "same objects", "images")
    ANSWERS: ClassVar = "objects"
    scale: ClassVar = 1.0  # of scores, and of boxes as shares

    score_difference: float
    box_difference: float
    same_objects: float
    objects: int
    images: int

    @property
    def share(self):
        return self.same_objects

    @property
    def cells(self):
        errors = f"{self.score_difference:.1e}", f"{self.box_difference:.1e}"
        same = f"{self.same_objects:.1%} of {self.objects}" if self.objects else "no objects"
        return (*errors, same, f"{self.images:,}")

    def within(self, tolerance=TOLERANCE):
        """Whether all differences are at most `tolerance`, and all objects of the same class."""
        # The class of a query that found nothing may depend on the last bit.
        largest = max(self.score_difference, self.box_difference)
        return self.finite and largest <= tolerance and self.same_objects == 1


def compare_detections(expected, actual):
    """The `DetectionAgreement` of two detectors on N images, with Q queries each.

    Both give `boxes` (N, Q, 4), shares of the images' sides, `scores` (N, Q) and `labels` (N, Q).
    """
    names = ("boxes", "scores", "labels")
    both = {name: np.stack([expected[name], actual[name]]) for name in names}  # (2, N, Q, ...)
    with np.errstate(invalid="ignore"):  # inf - inf
        scores = np.abs(np.subtract(*both["scores"]))  # (N, Q)
        boxes = np.abs(np.subtract(*both["boxes"])).max(axis=-1)  # (N, Q)
    is_object = both["scores"].max(axis=0) >= THRESHOLD
    is_same = np.equal(*both["labels"])
    is_same &= (boxes <= SAME_BOX) & (scores <= SAME_SCORE)
    return DetectionAgreement(
        score_difference=float(scores.max()),
        box_difference=float(boxes.max()),
        same_objects=float(is_same[is_object].mean()) if is_object.any() else 1.0,
        objects=int(is_object.sum()),
        images=len(scores),
    )


def median_milliseconds(call):
    """Median duration of a function's calls, after a few that are not timed."""
    seconds = []
    for _ in range(_WARM_UP_CALLS + _CALLS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds[_WARM_UP_CALLS:]))
