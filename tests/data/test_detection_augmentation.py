import numpy as np
import pytest
import tensorflow as tf
from coco_form import GREY, draw
from drawing import drawn
from PIL import Image
from tolerances import assert_close

from pit_keras.data.detection_augmentation import (
    SCALES,
    augment,
    centre_boxes,
    crop_box,
    cut_boxes,
    mirror,
    resize,
    resized_size,
    short_side,
)
from pit_keras.data.seeds import example_seed

STEPS = {"flip": False, "multi_scale": False, "random_crop": False}
CENTRED = 4  # roundings: a sum, its half, a share of the image, what is left of it in a mirror
SCENE = ((2, 20, 30, 60, 50), (5, 150, 12, 80, 100), (11, 60, 140, 120, 40))


def seeds(count):
    return [example_seed(0, 0, number) for number in range(count)]


def detr_size(height, width, size, max_size):
    """The rule in words of Python, as published."""
    shortest, longest = float(min(width, height)), float(max(width, height))
    if longest / shortest * size > max_size:
        size = round(max_size * shortest / longest)
    if width < height:
        return int(size * height / width), size
    return size, int(size * width / height)


def test_the_short_side_is_reached_unless_the_long_one_would_be_too_long():
    random = np.random.default_rng(0)
    for height, width in random.integers(100, 700, (150, 2)).tolist():
        for size in (240, 336, 400):
            expected = np.minimum(detr_size(height, width, size, 600), 600)
            found = resized_size(height, width, size, 600).numpy()
            np.testing.assert_array_equal(found, expected, err_msg=f"{height} {width} {size}")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (400, 533)),
        ((427, 640), (400, 599)),
        ((360, 640), (338, 600)),  # 337.5, to even
        ((640, 360), (600, 338)),
        ((50, 50), (400, 400)),
        ((3, 1000), (2, 600)),
        ((1, 5000), (1, 600)),
        ((5000, 1), (600, 1)),
    ],
)
def test_resized_sizes(size, expected):
    assert tuple(resized_size(*size, 400, 600).numpy()) == expected


def test_the_scales_at_half_of_detrs_size():
    drawn = {int(short_side(seed, 400)) for seed in seeds(300)}
    assert drawn == set(range(240, 401, 16))
    assert len(SCALES) == 11


def test_resizing_is_that_of_pillow(photographs):
    image = photographs[0]
    for size in ((200, 301), (500, 700)):
        expected = np.asarray(
            Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
        ).astype(int)
        difference = np.abs(resize(image, size).numpy() - expected)
        assert difference.max() <= 1


def crop_boxes(height, width, count):
    """The boxes of many images of one size: int (count, 4)."""
    return drawn(lambda seed: crop_box(height, width, seed, 400), count)


def test_half_of_the_images_are_cropped_within_their_borders():
    boxes = crop_boxes(480, 640, 600)
    top, left, height, width = boxes.T
    is_whole = (height == 480) & (width == 640)
    assert 250 < is_whole.sum() < 350
    assert (boxes[is_whole][:, :2] == 0).all()
    assert (boxes[:, :2] >= 0).all()
    assert (top + height <= 480).all()
    assert (left + width <= 640).all()
    cropped = boxes[~is_whole]
    # 192 to 300 of a picture of 200 x 266, 250 x 333 or 300 x 400, in pixels of 480 x 640.
    assert (cropped[:, 2] >= 192 * 480 / 300 - 1).all()
    assert (cropped[:, 3] >= 192 * 640 / 400 - 1).all()
    assert (cropped[:, 3] <= 300 * 640 / 300).all()
    assert len(np.unique(cropped[:, 0])) > 50
    assert len(np.unique(cropped[:, 1])) > 80
    assert len(np.unique(cropped[:, 2:], axis=0)) > 150


def test_the_sides_of_a_crop_are_drawn_evenly_at_each_of_three_sizes():
    sides = crop_boxes(1000, 1000, 900)[:, 2:]
    cropped = sides[(sides < 1000).any(axis=1)]
    # An image thought of as 200, 250 or 300 wide has sides of 192 to 200, 250 or 300.
    ratio = cropped[:, 0] / 1000
    expected = np.concatenate([np.arange(192, n + 1) / n for n in (200, 250, 300)])
    assert set(np.round(ratio * 1000)) <= set(np.round(expected * 1000))
    third = (ratio >= 0.96 - 1e-3).mean()  # all of the first, a part of the others
    share = (1 + 11 / 59 + 13 / 109) / 3
    assert abs(third - share) < 0.09


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 7), (37, 2000)])
def test_tiny_and_thin_images_are_cropped_within_their_borders(size):
    for top, left, height, width in crop_boxes(*size, 40):
        assert 0 <= top < top + height <= size[0]
        assert 0 <= left < left + width <= size[1]


def test_boxes_of_a_crop_are_clipped_and_those_outside_are_dropped():
    boxes = [[0, 0, 10, 10], [5, 5, 30, 30], [22, 12, 28, 18], [10, 0, 20, 10], [0, 20, 60, 21]]
    found, labels = cut_boxes(tf.constant(boxes, tf.float32), tf.range(5), [10, 20, 15, 25])
    np.testing.assert_array_equal(found, [[0, 0, 10, 15], [2, 2, 8, 8], [0, 10, 25, 11]])
    np.testing.assert_array_equal(labels, [1, 2, 4])


def test_boxes_are_shares_about_their_centre():
    boxes = centre_boxes(tf.constant([[10.0, 20, 30, 60], [0, 0, 200, 100]]), 100, 200)
    assert_close(boxes, [[0.1, 0.4, 0.1, 0.4], [0.5, 0.5, 1, 1]], roundings=CENTRED)


def test_mirroring_moves_the_centre_only():
    image = tf.reshape(tf.range(12, dtype=tf.int32), (1, 4, 3))
    mirrored, boxes = mirror(image, tf.constant([[0.25, 0.4, 0.5, 0.2]]))
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    np.testing.assert_allclose(boxes, [[0.75, 0.4, 0.5, 0.2]])


def augmented(seed, scene=SCENE, size=(200, 260), image_size=(120, 180), **steps):
    image = draw(*size, scene)
    corners = [[x, y, x + w, y + h] for _, x, y, w, h in scene]
    boxes = tf.constant(corners, tf.float32, shape=(len(scene), 4))
    labels = tf.range(len(scene))
    image, boxes, labels = augment(image, boxes, labels, seed, image_size, **{**STEPS, **steps})
    return image.numpy().astype(int), boxes.numpy(), labels.numpy()


def assert_rectangles_fill_their_boxes(image, boxes, labels):
    """Every pixel well within a box has its class's colour, every pixel well outside is grey."""
    height, width = image.shape[:2]
    outside = np.ones((height, width), bool)
    for (x, y, w, h), label in zip(boxes, labels, strict=True):
        left, right = (x - w / 2) * width, (x + w / 2) * width
        top, bottom = (y - h / 2) * height, (y + h / 2) * height
        inside = image[
            int(np.ceil(top + 1)) : int(bottom - 1), int(np.ceil(left + 1)) : int(right - 1)
        ]
        assert (inside.argmax(axis=-1) == label).all()
        assert (inside.max(axis=-1) > 190).all()
        outside[
            max(int(top - 1), 0) : int(np.ceil(bottom + 1)),
            max(int(left - 1), 0) : int(np.ceil(right + 1)),
        ] = False
    assert (np.abs(image[outside] - GREY) <= 1).all()


@pytest.mark.parametrize("step", ["none", "flip", "multi_scale", "random_crop", "all"])
def test_rectangles_stay_under_their_boxes(step):
    chosen = {name: step in (name, "all") for name in STEPS}
    shapes, counts = set(), set()
    for seed in seeds(25):
        image, boxes, labels = augmented(seed, **chosen)
        assert_rectangles_fill_their_boxes(image, boxes, labels)
        shapes.add(image.shape)
        counts.add(len(labels))
    assert (len(shapes) > 1) == (step in ("multi_scale", "random_crop", "all"))
    assert (len(counts) > 1) == (step in ("random_crop", "all"))


def test_without_random_steps_an_image_is_resized_to_the_largest_size():
    image, boxes, labels = augmented(example_seed(0, 0, 0))
    assert image.shape == (120, 156, 3)
    np.testing.assert_array_equal(labels, [0, 1, 2])
    expected = [[50 / 260, 55 / 200, 60 / 260, 50 / 200]]
    assert_close(boxes[:1], expected, roundings=CENTRED)


def test_half_of_the_images_are_mirrored():
    first = [augmented(seed, flip=True)[1][0, 0] for seed in seeds(100)]
    mirrored = np.array(first) > 0.5
    assert 35 < mirrored.sum() < 65
    assert_close(
        np.where(mirrored, 1 - np.array(first), first), 50 / 260, roundings=CENTRED, scale=1
    )


def test_an_image_without_boxes_is_augmented():
    for seed in seeds(6):
        image, boxes, labels = augmented(
            seed, scene=(), flip=True, multi_scale=True, random_crop=True
        )
        assert boxes.shape == (0, 4)
        assert labels.shape == (0,)
        assert (image == GREY).all()


def test_the_draws_of_an_example_are_those_of_its_seed():
    one, other = example_seed(1, 2, 3), example_seed(1, 3, 3)
    steps = dict.fromkeys(STEPS, True)
    first, again, different = (augmented(seed, **steps) for seed in (one, one, other))
    for value, repeated in zip(first, again, strict=True):
        np.testing.assert_array_equal(value, repeated)
    assert first[0].shape != different[0].shape or (first[0] != different[0]).any()
