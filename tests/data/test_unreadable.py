import pytest
import tensorflow as tf

from pit_keras.data.unreadable import UnreadableImageError, UnreadableImages


def test_each_image_is_named_once_and_counted_in_every_epoch(caplog):
    report = UnreadableImages()
    for epoch in (0, 1):
        for name in ("a.jpg", "b.jpg"):
            report.skip(name, epoch, epoch_length=10)
    assert tuple(report.positions) == ("a.jpg", "b.jpg")
    assert report.counts == {0: 2, 1: 2}
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "Skipping a.jpg",
        "Skipping b.jpg",
    ]


def test_more_than_half_of_an_epoch_is_too_much():
    report = UnreadableImages()
    for number in range(5):
        report.skip(f"{number}.jpg", 3, epoch_length=10)
    assert report.error is None
    report.skip("5.jpg", 3, epoch_length=10)
    message = r"half of the 10 images of epoch 3 .* 0\.jpg"
    with pytest.raises(UnreadableImageError, match=message), report.plain_errors():
        raise tf.errors.InvalidArgumentError(None, None, "refused")


def test_plain_errors_leave_other_errors_alone():
    report = UnreadableImages()
    with pytest.raises(tf.errors.DataLossError), report.plain_errors():
        raise tf.errors.DataLossError(None, None, "a broken record")
    with pytest.raises(KeyError), report.plain_errors():
        raise KeyError("x")
