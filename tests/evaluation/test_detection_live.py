"""COCO's metrics against keras-cv."""

import keras_cv
import numpy as np
import pytest
from tolerances import assert_close

from pit_keras.evaluation.detection import coco_detections, coco_metrics

IMAGES, OBJECTS, CLASSES = 8, 6, 3


@pytest.fixture(scope="module")
def case():
    """Boxes of all sizes in whole pixels, detections near them, labels, guesses and scores."""
    rng, shape = np.random.default_rng(0), (IMAGES, OBJECTS)
    places, sizes = rng.integers(0, 100, (*shape, 2)), rng.integers(20, 150, (*shape, 2))
    boxes = np.float32(np.concatenate([places, places + sizes], axis=-1))
    labels = rng.integers(CLASSES, size=shape)
    guesses = np.where(rng.uniform(size=shape) < 0.8, labels, rng.integers(CLASSES, size=shape))
    scores = np.float32(1 + rng.permutation(IMAGES * OBJECTS).reshape(shape)) / 64
    return boxes, boxes + np.float32(rng.integers(-4, 5, boxes.shape)), labels, guesses, scores


def ours(boxes, found, labels, guesses, scores):
    annotations = [
        {**truth, "id": number, "iscrowd": 0, "area": truth["bbox"][2] * truth["bbox"][3]}
        for number, truth in enumerate(
            coco_detections(range(IMAGES), range(CLASSES), boxes, scores, labels), 1
        )
    ]
    ground_truth = {
        "images": [{"id": number} for number in range(IMAGES)],
        "categories": [{"id": number} for number in range(CLASSES)],
        "annotations": annotations,
    }
    detections = coco_detections(range(len(found)), range(CLASSES), found, scores, guesses)
    return list(coco_metrics(ground_truth, detections).values())


def by_keras_cv(boxes, found, labels, guesses, scores):
    metric = keras_cv.metrics.BoxCOCOMetrics("xyxy", evaluate_freq=1)
    predictions = {"boxes": found, "classes": guesses, "confidence": scores}
    metric.update_state({"boxes": boxes, "classes": labels}, predictions)
    return [float(value) for value in metric.result().values()]


def test_cocos_metrics_are_those_of_keras_cv(case):
    metrics = ours(*case)
    assert all(0 < value < 1 for value in metrics)
    assert_close(by_keras_cv(*case), metrics, roundings=1)  # to float32


def test_keras_cv_leaves_out_images_without_a_detection(case):
    """Their objects count as missed in COCO's metrics; hence pycocotools itself is used."""
    boxes, found, labels, guesses, scores = case
    scores = np.where(np.arange(IMAGES)[:, None] == 0, 0, scores)  # keras-cv takes 0 for none
    without = [values[1:] for values in (boxes, found, labels, guesses, scores)]
    assert_close(
        by_keras_cv(boxes, found, labels, guesses, scores), by_keras_cv(*without), roundings=0
    )
