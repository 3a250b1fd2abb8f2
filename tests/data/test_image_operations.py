"""Every operation against Pillow's own on real photographs."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from pit_keras.data import image_operations as operations

FILL = (124, 116, 104)
GEOMETRY_LEVELS = 1.0  # mean difference that is allowed


def photographs():
    first, second = load_sample_images().images
    return {
        "photograph": first[100:324, 200:424],
        "rectangle": second[50:250, 30:350],
        "dark": second[10:234, 300:524] // 4 + 10,
        "flat": np.full((32, 40, 3), (7, 100, 255), np.uint8),
        "two levels": np.tile(np.uint8([[[3, 0, 255]], [[200, 0, 254]]]), (20, 30, 1)),
        "tiny": first[:1, :2],
    }


# The rectangle is a photograph too.
@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.slow) if name == "photograph" else name
        for name in photographs()
    ]
)
def image(request):
    return photographs()[request.param]


POINT = {
    "autocontrast": (operations.autocontrast, ImageOps.autocontrast, [()]),
    "equalize": (operations.equalize, ImageOps.equalize, [()]),
    "invert": (operations.invert, ImageOps.invert, [()]),
    "posterize": (operations.posterize, ImageOps.posterize, [(b,) for b in (1, 4, 8)]),
    "solarize": (operations.solarize, ImageOps.solarize, [(t,) for t in (0, 26, 128, 256)]),
}


@pytest.mark.parametrize("name", POINT)
def test_point_operations_equal_pillow(name, image):
    ours, theirs, arguments = POINT[name]
    for argument in arguments:
        expected = np.asarray(theirs(Image.fromarray(image), *argument))

        np.testing.assert_array_equal(ours(image, *argument), expected)


@pytest.mark.parametrize("addend", [0, 98, 110, 128])
def test_solarize_add_equals_its_table(image, addend):
    table = [min(255, level + addend) if level < 128 else level for level in range(256)]

    expected = np.asarray(Image.fromarray(image).point(table * 3))

    np.testing.assert_array_equal(operations.solarize_add(image, addend), expected)


BLENDS = {
    "color": (operations.adjust_color, ImageEnhance.Color),
    "contrast": (operations.adjust_contrast, ImageEnhance.Contrast),
    "brightness": (operations.adjust_brightness, ImageEnhance.Brightness),
    "sharpness": (operations.adjust_sharpness, ImageEnhance.Sharpness),
}


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.19, 1.0, 1.81, 1.9])
@pytest.mark.parametrize("name", BLENDS)
def test_blends_follow_pillow(name, factor, image):
    ours, theirs = BLENDS[name]
    expected = np.asarray(theirs(Image.fromarray(image)).enhance(factor)).astype(int)

    difference = np.abs(np.asarray(ours(image, factor)).astype(int) - expected)

    assert difference.max() <= 1
    assert difference.mean() < 0.01


def warped(image, matrix):
    pillow = Image.fromarray(image)
    affine = pillow.transform(
        pillow.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=FILL
    )
    return np.asarray(affine).astype(int)


def assert_same_picture(actual, expected):
    difference = np.abs(np.asarray(actual).astype(int) - expected)
    assert difference.mean() < GEOMETRY_LEVELS
    # Nor is the mean hiding a shift of the border: pixels that differ by much are rare.
    assert (difference > 3).mean() < 0.005


@pytest.mark.parametrize("factor", [-0.3, -0.27, 0.0, 0.1, 0.3])
def test_shears_follow_pillow(factor, image):
    assert_same_picture(
        operations.shear(image, factor, FILL, axis=1), warped(image, (1, factor, 0, 0, 1, 0))
    )
    assert_same_picture(
        operations.shear(image, factor, FILL, axis=0), warped(image, (1, 0, 0, factor, 1, 0))
    )


@pytest.mark.parametrize("share", [-0.45, -0.101, 0.0, 0.25, 0.405])
def test_translations_follow_pillow(share, image):
    height, width, _ = image.shape
    assert_same_picture(
        operations.translate(image, share, FILL, axis=1),
        warped(image, (1, 0, share * width, 0, 1, 0)),
    )
    assert_same_picture(
        operations.translate(image, share, FILL, axis=0),
        warped(image, (1, 0, 0, 0, 1, share * height)),
    )


@pytest.mark.parametrize("degrees", [-30.0, -27.0, -1.0, 0.0, 12.5, 30.0])
def test_rotation_follows_pillow(degrees, image):
    expected = Image.fromarray(image).rotate(
        degrees, resample=Image.Resampling.BICUBIC, fillcolor=FILL
    )

    rotated = operations.rotate(image, tf.constant(degrees), FILL)  # compiled once for all angles
    assert_same_picture(rotated, np.asarray(expected).astype(int))
