import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from pit_keras.data.labelled_images import open_source


def collect(dataset, count=None):
    """The elements of a dataset as a dict of lists."""
    elements = list(itertools.islice(dataset.as_numpy_iterator(), count))
    return {key: [element[key] for element in elements] for key in elements[0]}


SLOW = pytest.mark.slow
# A folder gives numbers as the digits do, and what holds for a part of the records for all; what is
# a folder's own is tested below.
SOURCES = ["digits", "held-out records"]
SOURCES += [pytest.param(name, marks=SLOW) for name in ("records", "folder")]


@pytest.fixture(scope="module", params=SOURCES)
def source(request, few_digits, image_folder, squares, unsplit_squares):
    if request.param == "digits":
        return few_digits
    if request.param == "folder":
        return open_source(f"folder:{image_folder}", holdout=0.25)
    folder = squares if request.param == "records" else unsplit_squares
    return open_source("squares", data_dir=folder, holdout=0.2)


def test_a_scan_gives_each_example_once_and_in_the_same_order(source):
    seen = []
    for split, size in source.sizes.items():
        first, second = collect(source.scan(split)), collect(source.scan(split))
        assert first["id"] == second["id"]
        assert len(set(first["id"])) == size == len(first["id"])
        assert {type(label) for label in first["label"]} == {np.int64}
        assert set(first["label"]) <= set(range(len(source.class_names)))
        seen.append({source.describe(split, int(example)) for example in first["id"]})
    assert len(seen[0] | seen[1]) == sum(source.sizes.values())  # named apart, in no split twice


def test_each_epoch_is_another_permutation(source):
    size = source.sizes["train"]
    stream = collect(source.train_stream(seed=3), 3 * size)
    epochs = [stream["id"][i * size : (i + 1) * size] for i in range(3)]
    everything = set(collect(source.scan("train"))["id"])
    assert all(set(ids) == everything for ids in epochs)
    assert len({tuple(ids) for ids in epochs}) == 3
    assert stream["epoch"] == [i // size for i in range(3 * size)]
    assert stream["position"] == list(range(3 * size))


def test_labels_and_images_stay_with_their_example(source):
    size = source.sizes["train"]
    scanned, stream = collect(source.scan("train")), collect(source.train_stream(0), size)
    contents = zip(scanned["label"], scanned["image"], strict=True)
    by_id = dict(zip(scanned["id"], contents, strict=True))
    for example, label, image in zip(*(stream[k] for k in ("id", "label", "image")), strict=True):
        assert label == by_id[example][0]
        np.testing.assert_array_equal(image, by_id[example][1])


@pytest.mark.parametrize("start", [pytest.param(13, marks=SLOW), 32, 37])
def test_the_stream_from_a_position_is_the_tail_of_the_whole(source, start):
    whole = collect(source.train_stream(5, length=16), 48)
    tail = collect(source.train_stream(5, start=start, length=16), 48 - start)
    for key in ("id", "label", "epoch", "position"):
        assert tail[key] == whole[key][start:]


def test_a_shortened_epoch_leaves_none_out_for_good(source):
    length = source.sizes["train"] - 2
    stream = collect(source.train_stream(0, length=length), 3 * length)
    epochs = [set(stream["id"][i * length : (i + 1) * length]) for i in range(3)]
    assert {len(ids) for ids in epochs} == {length}
    assert len(set.union(*epochs)) == source.sizes["train"]


def test_the_seed_decides_the_order(source):
    count = min(source.sizes["train"], 30)
    first, again, other = (collect(source.train_stream(seed), count)["id"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("length", "views"),
    [(16, 3), pytest.param(12, 4, marks=SLOW), pytest.param(7, 7, marks=SLOW), (5, 8)],
)
def test_an_epoch_gives_each_drawn_example_so_many_views_in_succession(source, length, views):
    whole = collect(source.train_stream(2, length=length, views=views), 3 * length)

    assert whole["position"] == list(range(3 * length))
    assert whole["epoch"] == [position // length for position in range(3 * length)]
    assert whole["view"] == [position % length % views for position in range(3 * length)]
    assert {view.dtype for view in whole["view"]} == {np.dtype(np.int64)}
    last = length % views
    for start in range(0, 3 * length, length):
        ids = whole["id"][start : start + length]
        # Dictionaries keep their order: the one that is cut short is the last.
        counts = list(collections.Counter(ids).values())
        assert counts == [views] * (length // views) + [last] * (last > 0)
        assert ids == [ids[i - i % views] for i in range(length)]
    assert whole["id"][:length] != whole["id"][length : 2 * length]


def test_views_share_the_image_and_the_label_of_their_example(source):
    scanned = collect(source.scan("train"))
    contents = zip(scanned["label"], scanned["image"], strict=True)
    by_id = dict(zip(scanned["id"], contents, strict=True))
    for element in source.train_stream(0, views=3).take(20).as_numpy_iterator():
        label, image = by_id[element["id"]]
        assert element["label"] == label
        np.testing.assert_array_equal(element["image"], image)


@pytest.fixture(scope="module")
def views(source):
    """Three epochs of sixteen elements, up to three of an example."""
    return collect(source.train_stream(5, length=16, views=3), 48)


# In the middle of an example, at the end of an epoch and within a later one.
@pytest.mark.parametrize(
    "start", [2, 16, 35, *(pytest.param(start, marks=SLOW) for start in (1, 3, 15, 17, 20))]
)
def test_the_stream_of_views_from_a_position_is_the_tail_of_the_whole(source, views, start):
    tail = collect(source.train_stream(5, start=start, length=16, views=3), 48 - start)
    for key in ("id", "label", "epoch", "position", "view"):
        assert tail[key] == views[key][start:]


def test_a_single_view_is_the_order_of_the_epochs_permutation():
    """Written out, since runs that were begun must be carried on with what they were begun with."""
    stream = open_source("digits").train_stream(3, start=90, length=100).take(200)
    for element in stream.as_numpy_iterator():
        epoch, index = divmod(int(element["position"]), 100)
        expected = tf.random.experimental.index_shuffle(
            index, tf.constant([3, epoch], tf.int64), max_index=1436
        )
        assert (element["id"], element["view"]) == (int(expected), 0)


def test_the_order_far_into_training_is_at_hand():
    stream = collect(open_source("digits").train_stream(0, start=10**12, length=1000), 2000)
    assert stream["epoch"] == [10**9] * 1000 + [10**9 + 1] * 1000
    assert len(set(stream["id"][:1000])) == 1000


def test_digits():
    source = open_source("digits", holdout=0.5)  # the split is fixed
    assert source.sizes == {"train": 1437, "val": 360}
    assert source.class_names == tuple("0123456789")
    assert not source.is_encoded
    grey, labels = load_digits(return_X_y=True)
    scans = [collect(source.scan(split)) for split in ("train", "val")]
    images = np.concatenate([scan["image"] for scan in scans])
    assert images.dtype == np.uint8
    expected = np.floor(grey.reshape(-1, 8, 8, 1) / 16 * 255 + 0.5)
    np.testing.assert_array_equal(images, np.broadcast_to(expected, (1797, 8, 8, 3)))
    np.testing.assert_array_equal(np.concatenate([scan["label"] for scan in scans]), labels)


def test_a_folder_gives_paths_that_load_as_rgb(image_folder):
    source = open_source(f"folder:{image_folder}")
    assert source.is_encoded
    assert source.class_names == ("china", "flower")
    scan = collect(source.scan("train"))
    for example, path, label in zip(scan["id"], scan["image"], scan["label"], strict=True):
        assert source.describe("train", int(example)) == path.decode()
        assert f"/{source.class_names[label]}/" in path.decode()
        image = source.load(path).numpy()
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
