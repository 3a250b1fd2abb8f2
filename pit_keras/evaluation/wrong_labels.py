"""Probable wrong labels: images whose neighbours all belong to one other class."""

import numpy as np

from pit_keras.data.similar_images import nearest

NEIGHBOURS = 10
_AGREEING = 0.8  # of the neighbours, the least share of one other class
# A class is judged where the features tell it from others: where half of its images have this share
# of their neighbours in it.
_RECOGNISED = 0.6
# Classes that many images lie between are alike, and a neighbour there proves little.
_MOST_BETWEEN = 0.03
_CELLS, _ANGLES = 4, 8  # of plain_features: cells on a side, orientations of edges


def wrong_labels(features, labels, classes, track=lambda items: items):
    """Images that probably belong to another class, {index: (class, its neighbours in it)}.

    Also returns which classes were judged, bool (classes,): of the others the features tell too
    little. `features` are (N, D), `labels` (N,).
    """
    judged = np.zeros(classes, bool)
    if len(labels) <= NEIGHBOURS:
        return {}, judged
    features = features - features.mean(0)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    indices, _ = nearest(features, NEIGHBOURS, track=track)
    rows = np.arange(len(labels))
    votes = np.zeros((len(labels), classes), int)
    np.add.at(votes, (rows[:, None], labels[indices]), 1)
    own = votes[rows, labels]
    votes[rows, labels] = -1
    other = votes.argmax(1)
    most = votes[rows, other]
    for label in np.unique(labels):
        judged[label] = np.median(own[labels == label]) >= _RECOGNISED * NEIGHBOURS
    between = np.zeros((classes, classes))  # shares of a class that lie between it and another
    doubtful = (own > 0) & (most > own)
    np.add.at(between, (labels[doubtful], other[doubtful]), 1)
    between /= np.maximum(np.bincount(labels, minlength=classes), 1)[:, None]
    is_wrong = (own == 0) & (most >= _AGREEING * NEIGHBOURS) & judged[labels] & judged[other]
    is_wrong &= between[labels, other] <= _MOST_BETWEEN
    found = np.flatnonzero(is_wrong)
    return {int(i): (int(other[i]), int(most[i])) for i in found}, judged


def plain_features(small):
    """Features (N, D) of small pictures, uint8 (N, S, S, 3): edges and colours in 4 x 4 cells."""
    count, side = len(small), small.shape[1] // _CELLS
    cells = (count, _CELLS, side, _CELLS, side, -1)
    grey = small.mean(-1, dtype=np.float32)
    down, right = np.gradient(grey, axis=(1, 2))
    length, angle = np.hypot(down, right), np.arctan2(down, right) % np.pi / np.pi * _ANGLES
    first = np.floor(angle).astype(int)
    edges = np.zeros((*grey.shape, _ANGLES), np.float32)
    for place, weight in ((first, first + 1 - angle), (first + 1, angle - first)):
        old = np.take_along_axis(edges, place[..., None] % _ANGLES, -1)
        np.put_along_axis(edges, place[..., None] % _ANGLES, old + (length * weight)[..., None], -1)
    edges = np.sqrt(edges.reshape(cells).sum((2, 4)).reshape(count, -1))
    colours = small.reshape(cells).mean((2, 4), dtype=np.float32).reshape(count, -1) - 127.5
    parts = [
        part / (np.linalg.norm(part, axis=1, keepdims=True) + 1e-3) for part in (edges, colours)
    ]
    return np.concatenate(parts, 1)
