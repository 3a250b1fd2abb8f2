"""What a detector sees of an image, in prediction as in evaluation."""

import numpy as np
import pytest
import tensorflow as tf
from coco_form import write_coco_form
from tolerances import assert_close

from pit_keras.config.fields import DataConfig
from pit_keras.data.coco import open_detection_source
from pit_keras.data.detection_pipeline import detection_evaluation_batches
from pit_keras.data.detection_preprocessing import preprocess_detection

DATA = DataConfig(image_size=(24, 36), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def test_prediction_sees_what_evaluation_sees_to_the_last_bit(tmp_path):
    sizes = ((48, 72), (72, 48), (60, 60), (40, 64), (90, 20), (19, 20), (20, 99))
    source = open_detection_source(
        f"coco:{write_coco_form(tmp_path, {'train': 1, 'val': 7}, sizes)}"
    )
    files = {int(e["id"]): source.load(e["image"]).numpy() for e in source.scan("val")}
    seen = 0
    for batch in detection_evaluation_batches(
        source, "val", DATA, batch_size=3
    ).as_numpy_iterator():
        for row in np.flatnonzero(batch["weight"]):
            inputs = preprocess_detection(files[batch["id"][row]][None], DATA)
            np.testing.assert_array_equal(inputs["images"][0], batch["image"][row])
            np.testing.assert_array_equal(inputs["padding_mask"][0], batch["padding_mask"][row])
            seen += 1
    assert seen == len(files) == 7


@pytest.mark.parametrize("fixed_size", [(24, 36), (36, 24), (30, 30)])
@pytest.mark.parametrize("size", [(10, 20), (20, 10), (48, 72), (72, 48), (50, 50), (20, 90)])
def test_into_a_fixed_size_an_image_fits_as_large_as_it_can(size, fixed_size):
    image = random_image(*size)
    inputs = preprocess_detection(image[None], DATA, fixed_size)
    assert inputs["images"].shape == (1, *fixed_size, 3)
    inside = ~inputs["padding_mask"].numpy()[0]
    height, width = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    expected = np.zeros(fixed_size, bool)
    expected[:height, :width] = True
    np.testing.assert_array_equal(inside, expected)
    scale = min(fixed_size[0] / size[0], fixed_size[1] / size[1])
    # As in DETR, the short side is rounded first, and the long one follows it.
    tolerance = 1 + 0.5 * max(size) / min(size)
    assert abs(height - size[0] * scale) <= tolerance
    assert abs(width - size[1] * scale) <= tolerance
    np.testing.assert_array_equal(inputs["images"][0][~inside], 0)


def test_what_is_seen_is_normalised_and_the_same_of_every_image_of_a_batch():
    images = np.stack([random_image(24, 36, seed) for seed in range(2)])  # nothing to resize
    inputs = preprocess_detection(images, DATA)
    assert not inputs["padding_mask"].numpy().any()
    # Two factors, their product, the offset and the difference, of numbers up to 1 / 0.2.
    assert_close(inputs["images"], (images / 255 - DATA.mean) / DATA.std, roundings=5, scale=5)


@pytest.mark.parametrize("fixed_size", [None, (24, 36)])
def test_sizes_may_be_unknown_while_tracing(fixed_size):
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    def traced(images):
        return preprocess_detection(images, DATA, fixed_size)

    for size in ((30, 70), (70, 30)):
        images = random_image(*size)[None]
        for name, expected in preprocess_detection(images, DATA, fixed_size).items():
            np.testing.assert_array_equal(traced(images)[name], expected)
