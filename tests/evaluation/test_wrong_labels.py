import numpy as np
import pytest

from pit_keras.evaluation.wrong_labels import plain_features, wrong_labels

CLASSES, OF_EACH, WIDTH = 4, 30, 8


def clusters(spread, seed=0):
    """Features around a centre for each class, and the labels."""
    chance = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), OF_EACH)
    return np.eye(WIDTH)[labels] + spread * chance.normal(size=(len(labels), WIDTH)), labels


def test_moved_labels_are_found_and_no_others():
    features, labels = clusters(0.05)
    assert wrong_labels(features, labels, CLASSES)[0] == {}
    moved = {3: 1, 40: 2, 119: 0}
    wrong = labels.copy()
    wrong[list(moved)] = list(moved.values())
    found, judged = wrong_labels(features, wrong, CLASSES)
    assert found == {index: (labels[index], 10) for index in moved}
    assert judged.all()


def test_what_the_features_do_not_tell_is_not_judged():
    features, labels = clusters(0.05)
    mixed = labels.copy()
    mixed[: 2 * OF_EACH] = np.arange(2 * OF_EACH) % 2  # classes 0 and 1 have the same images
    mixed[100] = 0
    found, judged = wrong_labels(features, mixed, CLASSES)
    assert judged.tolist() == [False, False, True, True]
    assert found == {}


def test_a_neighbourhood_proves_little_where_many_images_lie_between_the_classes():
    features, labels = clusters(0.01)
    features[0] = features[OF_EACH]  # of class 0, among class 1
    assert wrong_labels(features, labels, CLASSES)[0] == {0: (1, 10)}
    features[[1, 2, 3, *range(OF_EACH + 1, OF_EACH + 8)]] = np.eye(WIDTH)[
        -1
    ]  # three of 0, seven of 1
    assert wrong_labels(features, labels, CLASSES)[0] == {}


@pytest.mark.parametrize("count", [0, 1, 10])
def test_few_images_are_not_judged(count):
    found, judged = wrong_labels(np.ones((count, 3)), np.zeros(count, int), 2)
    assert found == {}
    assert judged.tolist() == [False, False]


def test_plain_features_tell_edges_and_colours():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::8] = 200
    red = stripes + np.array([50, 0, 0], np.uint8)
    features = plain_features(np.stack([stripes, stripes.transpose(1, 0, 2), red, stripes // 2]))
    assert features.shape == (4, 4 * 4 * (8 + 3))
    distances = np.linalg.norm(features - features[0], axis=1)
    assert distances[0] == 0
    assert distances[1] > 1  # other edges
    assert 0 < distances[3] < distances[2] < distances[1]
    assert np.isfinite(plain_features(np.zeros((2, 32, 32, 3), np.uint8))).all()
