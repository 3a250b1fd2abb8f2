"""The hidden centre, pixel by pixel, and the accuracy that is left."""

import numpy as np
import pytest
from robustness_data import (
    DATA,
    MEAN,
    SIDE,
    STD,
    likely_labels,
    linear_logits,
    linear_model,
    pixel_source,
    random_pixels,
)

from pit_keras.evaluation.classification import evaluate_source
from pit_keras.evaluation.occlusion import centre_box, occlusion_columns, occlusion_counts
from pit_keras.runs.trained_model import TrainedModel

NAMES = tuple("abcdefghij")


@pytest.mark.parametrize(
    ("image_size", "box", "rows", "columns"),
    [
        ((224, 224), (112, 112), range(56, 168), range(56, 168)),  # the paper's
        ((6, 9), (2, 3), range(2, 4), range(3, 6)),
        ((6, 9), (3, 4), range(1, 4), range(2, 6)),
        ((5, 5), (5, 1), range(5), range(2, 3)),
    ],
)
def test_the_box_lies_in_the_middle(image_size, box, rows, columns):
    inside = centre_box(image_size, box)
    assert inside.shape == (*image_size, 1)
    for row in range(image_size[0]):
        for column in range(image_size[1]):
            assert inside[row, column, 0] == (row in rows and column in columns)


@pytest.mark.parametrize("box", [(7, 6), (6, 10)])
def test_a_box_that_does_not_fit_is_refused(box):
    with pytest.raises(ValueError, match=f"{box[0]} x {box[1]} pixels does not fit .* of 6 x 9"):
        centre_box((6, 9), box)


def test_columns_tell_one_measurement_from_another():
    assert occlusion_columns((224, 224)) == {"occlusion": (112, 112)}
    assert occlusion_columns((384, 320)) == {"occlusion": (192, 160)}
    assert occlusion_columns((224, 224), (112, 56), "black") == {
        "occlusion_black": (112, 112),
        "occlusion_56_black": (56, 56),
    }


@pytest.mark.parametrize(("fill", "level"), [("mean", 255 * MEAN), ("black", np.zeros(3))])
def test_accuracy_is_that_of_images_painted_by_hand(fill, level):
    model, pixels = linear_model(), random_pixels(45)
    labels = likely_labels(model, pixels)
    expected = {}
    columns = occlusion_columns((SIDE, SIDE), (4, 6), fill)
    for column, (first, last) in zip(columns, ((2, 6), (1, 7)), strict=True):
        painted = pixels.astype("float64")
        painted[:, first:last, first:last] = level
        answers = linear_logits(model, (painted / 255 - MEAN) / STD).argmax(axis=1)
        expected[column] = (answers == labels).mean()
    assert len(set(expected.values())) == 2

    trained = TrainedModel(model, NAMES, DATA)
    counts = occlusion_counts(columns, DATA, fill)
    source = pixel_source(pixels, labels, NAMES)
    measured = evaluate_source(trained, source, batch_size=8, progress=False, counts=counts)

    assert {column: measured[column] for column in columns} == expected
    assert measured["images"] == 45
