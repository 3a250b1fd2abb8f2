import numpy as np
import pytest

from pit_keras.export.tflite import batches, export_tflite, tflite_latency


def test_the_last_batch_is_filled_up():
    images = [np.full((2, 2, 3), number, np.uint8) for number in range(5)]
    numbers = [(batch[:, 0, 0, 0].tolist(), count) for batch, count in batches(iter(images), 2)]
    assert numbers == [([0, 1], 2), ([2, 3], 2), ([4, 4], 1)]
    assert not list(batches([], 2))


def test_latency_of_a_file_of_any_batch(make_trained, tmp_path):
    trained, image = make_trained("vit_ti"), np.zeros((32, 32, 3), np.uint8)
    milliseconds = {}
    for batch in (1, 64):
        export_tflite(trained, tmp_path / "model.tflite", batch=batch)
        milliseconds[batch] = tflite_latency(tmp_path / "model.tflite", image, threads=1, calls=5)
    # Of 64 images, a call takes long enough to tell milliseconds from seconds.
    assert 0 < milliseconds[1] < milliseconds[64]
    with pytest.raises(ValueError, match="broadcast"):
        tflite_latency(tmp_path / "model.tflite", image[:1, :31])
