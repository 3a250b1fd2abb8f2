import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from pit_keras.data.image_facts import SIDE
from pit_keras.data.similar_images import near_duplicates, nearest, unit


def compressed(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=50)
    return Image.open(file)


CHANGES = {
    "compressed": compressed,
    "halved": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    "mirrored": ImageOps.mirror,
}


@pytest.fixture(scope="module")
def pieces(photographs):
    """Pieces of photographs that do not overlap."""
    return [
        Image.fromarray(photograph[top : top + 80, left : left + 80])
        for photograph in photographs
        for top in range(100, 341, 80)
        for left in range(0, 560, 80)
    ]


def small(pictures):
    sides = (SIDE, SIDE)
    return np.stack([each.resize(sides, Image.Resampling.BILINEAR) for each in pictures])


def test_the_nearest_are_those_of_all_pairs():
    vectors = np.random.default_rng(0).normal(size=(1100, 5)).astype("float32")  # three blocks
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    indices, found = nearest(vectors, 4)
    assert np.array_equal(indices, np.argsort(-cosines, axis=1)[:, :4])
    bound = 5 * np.finfo("float32").eps  # sums of five terms
    assert np.abs(found - np.sort(cosines, axis=1)[:, :-5:-1]).max() <= bound


def test_another_form_may_be_nearer():
    vectors = np.array([[1, 0], [0.8, 0.6], [0, -1]], "float32")
    assert nearest(vectors, 1)[0].ravel().tolist() == [1, 0, 0]
    assert nearest(vectors, 1, [-vectors])[0].ravel().tolist() == [1, 0, 1]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_nothing_else(change, pieces):
    assert near_duplicates(small(pieces)) == []
    changed = [CHANGES[change](pieces[index]) for index in (24, 40)]
    count = len(pieces)
    found = near_duplicates(small([*pieces, *changed]))
    assert found == [(24, count), (40, count + 1)]


def test_pictures_of_one_colour_are_not_alike(pieces):
    flat = [Image.new("RGB", (80, 80), (level, 90, 200)) for level in range(0, 250, 10)]
    assert near_duplicates(small(flat)) == []
    assert near_duplicates(small([*flat, *pieces])) == []


def test_the_same_shape_in_another_colour_is_another_image(pieces):
    swapped = Image.merge("RGB", pieces[24].split()[::-1])
    assert near_duplicates(small([*pieces, swapped])) == []


def test_in_a_crowd_that_is_alike_only_copies_are_near(pieces):
    base = np.asarray(pieces[24].resize((8, 8)), float)
    chance = np.random.default_rng(0)
    crowd = [
        np.clip(base + chance.normal(0, base.std() / 8, base.shape), 0, 255).astype("uint8")
        for _ in range(30)
    ]
    crowd = list(map(Image.fromarray, crowd))
    vectors = unit(small(crowd).mean(-1))
    assert np.median(1 - vectors @ vectors.T) < 0.03  # near, were it not for the others
    assert near_duplicates(small(crowd)) == []
    assert near_duplicates(small([*crowd, ImageOps.mirror(crowd[3])])) == [(3, 30)]


def test_many_copies_of_one_image_are_all_found(pieces):
    """More than the neighbours that say how alike images are."""
    assert len(near_duplicates(small([*pieces, *[pieces[24]] * 15]))) >= 15


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images(count, pieces):
    assert near_duplicates(small(pieces)[:count]) == []


def test_unit_vectors():
    vectors = unit(np.random.default_rng(0).uniform(0, 255, (3, 4, 4)))
    assert np.abs(vectors.mean(1)).max() < 1e-12
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1])
