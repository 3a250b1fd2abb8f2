"""Counts from predictions, held against their definitions, written out slowly."""

import numpy as np
import pytest

from pit_keras.evaluation.predictions import CALIBRATION_BINS, Predictions


def random_predictions(images=200, classes=6, seed=0, missing=5):
    """Random ones, in which the class `missing` is never predicted."""
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=images)
    guess = rng.integers(classes, size=images)
    predicted = np.where(rng.random(images) < 0.6, label, guess)
    predicted[predicted == missing] = 0
    return Predictions(
        split=np.repeat("val", images),
        position=np.arange(images),
        label=label,
        predicted=predicted,
        probability=rng.uniform(0.2, 1, images).astype("float32"),
        loss=rng.exponential(size=images).astype("float32"),
        classes=classes,
    )


def test_the_confusion_counts_every_image_once():
    predictions = random_predictions()
    expected = np.zeros((6, 6), int)
    for label, predicted in zip(predictions.label, predictions.predicted, strict=True):
        expected[label, predicted] += 1
    confusion = predictions.confusion()
    assert confusion.tolist() == expected.tolist()
    assert confusion.sum() == len(predictions) == 200
    assert np.trace(confusion) == 200 - predictions.is_wrong.sum()


def test_confused_pairs_are_the_largest_cells_beside_the_diagonal():
    predictions = random_predictions()
    confusion = predictions.confusion()
    cells = [(i, j, confusion[i, j]) for i in range(6) for j in range(6) if i != j]
    cells = [cell for cell in cells if cell[2]]
    cells.sort(key=lambda cell: -cell[2])  # stable: of equals the first classes
    assert predictions.confused_pairs(1000) == cells
    assert predictions.confused_pairs(3) == cells[:3]


def test_precision_and_recall_are_their_definitions_and_nan_where_there_is_nothing():
    predictions = random_predictions()
    predictions.label[predictions.label == 4] = 3  # no images of class 4
    label, predicted = predictions.label, predictions.predicted
    measures = predictions.per_class()
    for k in range(6):
        right = ((label == k) & (predicted == k)).sum()
        images, taken = (label == k).sum(), (predicted == k).sum()
        assert measures["images"][k] == images
        expected = {
            "recall": right / images if images else np.nan,
            "precision": right / taken if taken else np.nan,
            "f1": 2 * right / (images + taken) if images + taken else np.nan,
        }
        for name, value in expected.items():
            assert measures[name][k] == pytest.approx(value, nan_ok=True), (name, k)
    assert np.isnan(measures["recall"]).tolist() == [False] * 4 + [True, False]
    assert np.isnan(measures["precision"]).tolist() == [False] * 5 + [True]


def test_images_are_whole_numbers_even_if_every_answer_is_wrong():
    predictions = random_predictions()
    predictions.predicted[:] = (predictions.label + 1) % 6
    images = predictions.per_class()["images"]
    assert images.dtype.kind == "i"
    assert images.tolist() == [(predictions.label == k).sum() for k in range(6)]


def test_the_worst_are_the_mistakes_of_the_highest_loss():
    predictions = random_predictions()
    wrong = [
        index for index in range(200) if predictions.label[index] != predictions.predicted[index]
    ]
    wrong.sort(key=lambda index: -predictions.loss[index])
    assert predictions.worst(7).tolist() == wrong[:7]
    assert predictions.worst(1000).tolist() == wrong
    perfect = Predictions(**{**vars(predictions), "predicted": predictions.label})
    assert perfect.worst(7).tolist() == []
    assert perfect.confused_pairs(7) == []


def test_the_calibration_error_is_the_mean_gap_over_bins():
    predictions = random_predictions()
    calibration = predictions.calibration()
    error, bins = 0.0, CALIBRATION_BINS
    for k in range(bins):
        inside = [
            i for i, p in enumerate(predictions.probability) if k / bins < p <= (k + 1) / bins
        ]
        assert calibration.images[k] == len(inside)
        if not inside:
            assert np.isnan([calibration.accuracy[k], calibration.confidence[k]]).all()
            continue
        accuracy = np.mean(~predictions.is_wrong[inside])
        confidence = predictions.probability[inside].mean(dtype=float)
        assert calibration.accuracy[k] == pytest.approx(accuracy)
        assert calibration.confidence[k] == pytest.approx(confidence)
        error += len(inside) / 200 * abs(accuracy - confidence)
    assert calibration.error == pytest.approx(error)


@pytest.mark.parametrize(
    ("probability", "right", "error"),
    [(1.0, 4, 0.0), (1.0, 3, 0.25), (0.5, 2, 0.0), (0.0, 0, 0.0), (1.0000001, 0, 1.0)],
)
def test_calibration_at_its_ends(probability, right, error):
    predictions = Predictions(
        split=np.repeat("val", 4),
        position=np.arange(4),
        label=np.zeros(4, int),
        predicted=np.array([0] * right + [1] * (4 - right)),
        probability=np.full(4, probability),
        loss=np.ones(4),
        classes=2,
    )
    assert predictions.calibration().images.sum() == 4
    assert predictions.calibration().error == pytest.approx(error, abs=1e-6)
