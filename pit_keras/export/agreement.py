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
# What still counts as the same object: sides moved by a share of the image, and a change of score.
SAME_BOX = 0.02
SAME_SCORE = 0.1
CALLS = 30
_WARM_UP_CALLS = 3


@dataclasses.dataclass(frozen=True)
class Sample:
    """Images in two forms: as a device hands them to the model, and as they came.

    Attributes:
        crops: uint8 (N, H, W, 3) of the model's own size, cut out as in evaluation.
        photographs: The first `MOST_PHOTOGRAPHS` of the images as they came, uint8 (h, w, 3) of any
            sizes. (All of them, of a good camera, would not fit into memory.)
        origin: What they are, for the report.
    """

    crops: np.ndarray
    photographs: list[np.ndarray]
    origin: str

    def __len__(self):
        return len(self.crops)


def take_sample(images, data, origin):
    """A `Sample` of images.

    Args:
        images: Any number of uint8 images (h, w, 3), each of any size; read once.
        data: The `DataConfig` with the model's image size and evaluation crop.
        origin: What they are, for the report.

    Raises:
        ValueError: If there are none, or one is not such an image.
    """
    crops, photographs = [], []
    for image in images:
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
            raise ValueError(
                f"Images must be uint8 (H, W, 3); got {image.dtype} of shape {image.shape}."
            )
        crop = resize_and_crop(image, data.image_size, data.eval_crop)
        crops.append(tf.cast(crop, tf.uint8).numpy())  # whole levels: nothing is lost
        if len(photographs) < MOST_PHOTOGRAPHS:
            photographs.append(image)
    if not crops:
        raise ValueError("There are no images to compare the exported model with.")
    return Sample(np.stack(crops), photographs, origin)


def validation_images(source, count):
    """At most `count` images of a source's validation split, from all over it."""
    every = max(1, source.sizes["val"] // count)
    return _loaded(source, source.scan("val").shard(every, 0), count)


def training_images(source, count):
    """At most `count` images of a source's training split, drawn at random but always the same."""
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


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How two sets of logits differ.

    Attributes:
        max_difference: The largest absolute difference of two logits; NaN if one of them is.
        mean_difference: The mean absolute difference.
        scale: The largest absolute logit expected.
        top1_agreement: Share of the images, 0..1, for which both have the same likeliest class.
        images: How many there were.
    """

    HEADINGS: ClassVar = ("largest error", "mean error", "same top-1", "images")

    max_difference: float
    mean_difference: float
    scale: float
    top1_agreement: float
    images: int

    @property
    def share(self):
        """The share of answers that are the same, 0..1."""
        return self.top1_agreement

    @property
    def cells(self):
        """Texts under `HEADINGS`."""
        return (
            f"{self.max_difference:.1e}",
            f"{self.mean_difference:.1e}",
            f"{self.top1_agreement:.1%}",
            f"{self.images:,}",
        )

    @staticmethod
    def allowed(min_agreement):
        """What is asked for, in words: a least share, or None for `TOLERANCE`."""
        if min_agreement is None:
            return f"{TOLERANCE:.0e} of the largest logit is allowed"
        return f"{min_agreement:.1%} of the likeliest classes must be the same"

    @property
    def finite(self):
        """Whether all logits are, expected and actual."""
        return bool(np.isfinite(self.max_difference + self.scale))

    def within(self, tolerance=TOLERANCE):
        """Whether the largest difference is at most `tolerance` of the largest logit."""
        # Written so that NaN and infinity, of which every comparison is false, do not agree.
        return self.max_difference <= tolerance * self.scale < np.inf

    def __str__(self):
        share = self.max_difference / self.scale if self.scale else self.max_difference
        return (
            f"the logits of {self.images} images differ by at most {self.max_difference:.1e}, "
            f"{share:.0e} of the largest ({self.scale:.3g}), and {self.top1_agreement:.1%} of the "
            "likeliest classes are the same"
        )


def compare(expected, actual):
    """The `Agreement` of two arrays of logits, both (N, classes).

    Raises:
        ValueError: If their shapes differ.
    """
    expected, actual = np.asarray(expected), np.asarray(actual)
    if expected.shape != actual.shape:
        raise ValueError(f"Logits of shape {expected.shape} were expected, not {actual.shape}.")
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
class DetectionAgreement:
    """How what two detectors say of the same images differs, query by query.

    Attributes:
        score_difference: The largest absolute difference of two scores; NaN if one of them is.
        box_difference: The largest of two boxes' sides, as a share of the image's.
        same_objects: Share of the objects, 0..1, that both find: of the same class, with sides
            within `SAME_BOX` and a score within `SAME_SCORE`. 1 where there are no objects.
        objects: How many were found by either, with a score of `THRESHOLD` or more.
        images: How many there were.
    """

    HEADINGS: ClassVar = ("score error", "box error", "same objects", "images")

    score_difference: float
    box_difference: float
    same_objects: float
    objects: int
    images: int

    @property
    def finite(self):
        """Whether all answers are, expected and actual."""
        return bool(np.isfinite(self.score_difference + self.box_difference))

    @property
    def share(self):
        """The share of answers that are the same, 0..1."""
        return self.same_objects

    @property
    def cells(self):
        """Texts under `HEADINGS`."""
        return (
            f"{self.score_difference:.1e}",
            f"{self.box_difference:.1e}",
            f"{self.same_objects:.1%} of {self.objects}" if self.objects else "no objects",
            f"{self.images:,}",
        )

    @staticmethod
    def allowed(min_agreement):
        """What is asked for, in words: a least share, or None for `TOLERANCE`."""
        if min_agreement is None:
            return f"{TOLERANCE:.0e} is allowed"
        return f"{min_agreement:.1%} of the objects must be the same"

    def within(self, tolerance=TOLERANCE):
        """Whether the largest differences are at most `tolerance`."""
        return self.score_difference <= tolerance and self.box_difference <= tolerance

    def __str__(self):
        objects = f"{self.same_objects:.1%} of {self.objects} objects are the same"
        if not self.objects:
            objects = f"neither is sure of any object (none has a score of {THRESHOLD} or more)"
        return (
            f"the scores of {self.images} images differ by at most {self.score_difference:.1e}, "
            f"the boxes by {self.box_difference:.1e} of the image's sides, and {objects}"
        )


def compare_detections(expected, actual):
    """The `DetectionAgreement` of what two detectors say of N images, with Q queries each.

    Args:
        expected, actual: `boxes` (N, Q, 4), shares of the images' sides; `scores` (N, Q); and
            `labels` (N, Q), query by query.

    Raises:
        ValueError: If their shapes differ.
    """
    for name in ("boxes", "scores", "labels"):
        if expected[name].shape != actual[name].shape:
            raise ValueError(
                f"{name} of shape {expected[name].shape} were expected, not {actual[name].shape}."
            )
    with np.errstate(invalid="ignore"):  # inf - inf
        scores = np.abs(expected["scores"] - actual["scores"])  # (N, Q)
        boxes = np.abs(expected["boxes"] - actual["boxes"]).max(axis=-1)  # (N, Q)
    is_object = np.maximum(expected["scores"], actual["scores"]) >= THRESHOLD
    is_same = (
        (expected["labels"] == actual["labels"]) & (boxes <= SAME_BOX) & (scores <= SAME_SCORE)
    )
    return DetectionAgreement(
        score_difference=float(scores.max()),
        box_difference=float(boxes.max()),
        same_objects=float(is_same[is_object].mean()) if is_object.any() else 1.0,
        objects=int(is_object.sum()),
        images=len(scores),
    )


def median_milliseconds(call, calls=CALLS):
    """Median duration of a function's calls, after a few that are not timed."""
    seconds = []
    for _ in range(_WARM_UP_CALLS + calls):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds[_WARM_UP_CALLS:]))
