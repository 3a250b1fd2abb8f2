"""Whether an exported model computes what the Keras model does, on real images."""

import dataclasses

import numpy as np

from pit_keras.export.formats import TOLERANCE


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

    max_difference: float
    mean_difference: float
    scale: float
    top1_agreement: float
    images: int

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
