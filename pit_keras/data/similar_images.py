"""Images that are nearly the same, and the nearest neighbours of vectors.

All pairs are compared, as products of matrices: for 50,000 images that takes less time than to read
them.
"""

import numpy as np

from pit_keras.data.image_facts import SIDE

_BLOCK = 512  # rows of the product that are held in memory
_CROWD = 10  # the place of the neighbour that says how alike images of this kind are
# Distances are 1 minus the correlation of small grey pictures. Two are nearly the same if their
# distance is small and far smaller than to others, or next to nothing; and their colours agree.
_NEAR, _SHARE_OF_CROWD, _NOTHING = 0.03, 0.15, 0.003
_NEAR_COLOURS = 0.05
_LEAST_CONTRAST = 4  # levels; pictures of one colour are all alike


def nearest(vectors, count, others=(), track=lambda items: items):
    """The `count` nearest of each unit vector (N, D) among the rest, the nearest first.

    Returns indices and cosines (N, count). `others` are arrays (N, D) of other forms of the
    vectors; the form that is nearest counts.
    """
    indices = np.empty((len(vectors), count), np.int64)
    cosines = np.empty((len(vectors), count), np.float32)
    for start in track(range(0, len(vectors), _BLOCK)):
        rows = slice(start, start + _BLOCK)
        block = vectors[rows] @ vectors.T
        for other in others:
            np.maximum(block, other[rows] @ vectors.T, out=block)
        places = np.arange(len(block))
        block[places, start + places] = -np.inf
        best = np.argpartition(block, -count, axis=1)[:, -count:]
        order = np.argsort(-np.take_along_axis(block, best, 1), axis=1, kind="stable")
        indices[rows] = np.take_along_axis(best, order, 1)
        cosines[rows] = np.take_along_axis(block, indices[rows], 1)
    return indices, cosines


def near_duplicates(small, track=lambda items: items):
    """Sorted pairs (i, j), i < j, of small pictures, uint8 (N, SIDE, SIDE, 3), nearly the same.

    They may be scaled, compressed again, brighter or mirrored. Pictures of one colour are not
    compared.
    """
    halves = np.reshape(small, (-1, SIDE // 2, 2, SIDE // 2, 2, 3))
    colours = halves.mean((2, 4), dtype=np.float32)  # (N, 16, 16, 3)
    grey = colours.mean(-1)
    usable = np.flatnonzero(grey.std((1, 2)) >= _LEAST_CONTRAST)
    if len(usable) < 2:
        return []
    vectors, mirrored = unit(grey[usable]), unit(grey[usable, :, ::-1])
    indices, cosines = nearest(vectors, min(_CROWD, len(usable) - 1), [mirrored], track)
    distances = 1 - cosines
    close = (distances < _NEAR) & (distances < _SHARE_OF_CROWD * distances[:, -1:])
    rows, places = np.nonzero(close | (distances < _NOTHING))
    pairs = {tuple(sorted(pair)) for pair in zip(rows, indices[rows, places], strict=True)}
    return sorted(
        (int(usable[one]), int(usable[other]))
        for one, other in pairs
        if _same_colours(colours[usable[one]], colours[usable[other]])
    )


def _same_colours(one, other):
    forms = unit(np.stack([one, other, other[:, ::-1]]))
    return 1 - (forms[1:] @ forms[0]).max() < _NEAR_COLOURS


def unit(images):
    """Images (N, ...) as vectors (N, D) of mean 0 and length 1."""
    vectors = images.reshape(len(images), -1)
    vectors = vectors - vectors.mean(1, keepdims=True)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
