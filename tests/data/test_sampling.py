"""A sample is of the right size, spread over the split, and otherwise its source."""

import numpy as np
import pytest
import tensorflow as tf

from pit_keras.config.fields import DataConfig
from pit_keras.data.labelled_images import ArraySource, open_source
from pit_keras.data.pipeline import evaluation_batches
from pit_keras.data.sampling import EvenSample
from pit_keras.data.sharding import Shard


def source_of(size):
    """Images of one grey level each, their number."""
    pixels = np.broadcast_to(np.arange(size)[:, None, None, None], (size, 2, 2, 3))
    images = tf.constant(pixels, tf.uint8)
    labels = tf.range(size, dtype=tf.int64)
    return ArraySource(
        "numbers",
        tuple(map(str, range(size))),
        {"train": images[:0], "val": images},
        {"train": labels[:0], "val": labels},
    )


def ids(examples):
    return [int(example["id"]) for example in examples]


@pytest.mark.parametrize(
    ("size", "count"),
    [
        *((10, 1), (10, 7), (10, 99), (97, 13)),
        *(
            pytest.param(*some, marks=pytest.mark.slow)
            for some in ((10, 3), (10, 9), (10, 10), (1, 1))
        ),
    ],
)
def test_so_many_examples_evenly_spaced(size, count):
    sample = EvenSample(source_of(size), count)

    found = ids(sample.scan("val"))

    assert len(found) == sample.sizes["val"] == min(size, count)
    gaps = set(np.diff([*found, found[0] + size]))
    assert found[0] == 0
    assert gaps <= {size // len(found), -(-size // len(found))}


def test_the_examples_are_the_sources_own():
    source = open_source("digits")
    sample = EvenSample(source, 7)
    assert (sample.name, sample.class_names, sample.is_encoded) == (
        "digits",
        source.class_names,
        False,
    )
    assert sample.sizes == {"train": 7, "val": 7}
    assert sample.describe("val", 5) == source.describe("val", 5)
    for example in sample.scan("val"):
        number = int(example["id"])
        np.testing.assert_array_equal(sample.load(example["image"]), source.images["val"][number])
        assert example["label"] == source.labels["val"][number]


def test_workers_share_a_sample():
    sample = EvenSample(source_of(50), 9)
    whole = ids(sample.scan("val"))
    parts = [ids(sample.scan("val", Shard(worker, 2, 2))) for worker in range(2)]
    assert parts == [[whole[i] for i in (0, 1, 4, 5, 8)], [whole[i] for i in (2, 3, 6, 7)]]


def test_evaluation_goes_over_a_sample():
    config = DataConfig(image_size=(2, 2), eval_crop=1.0)
    batches = list(evaluation_batches(EvenSample(source_of(40), 5), "val", config, batch_size=4))
    assert [batch["id"].numpy().tolist() for batch in batches] == [
        [0, 8, 16, 24],
        [32, -1, -1, -1],
    ]
    assert sum(float(tf.reduce_sum(batch["weight"])) for batch in batches) == 5


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match="needs 1 image or more, got 0"):
        EvenSample(source_of(3), 0)
    with pytest.raises(ValueError, match="sample of digits is for evaluation"):
        EvenSample(open_source("digits"), 3).train_stream(seed=0)
