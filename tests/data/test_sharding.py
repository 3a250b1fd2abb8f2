import itertools
import os

import numpy as np
import pytest
import tensorflow as tf

from pit_keras.config.fields import DataConfig
from pit_keras.data.labelled_images import open_source
from pit_keras.data.pipeline import check_train_batches, evaluation_batches, train_batches
from pit_keras.data.source import Shard
from pit_keras.data.unreadable import UnreadableImages

KEYS = ("id", "label", "epoch", "position", "view")
# A folder gives numbers as the digits do, and what holds for a part of the records for all.
SOURCES = ["digits", "held-out records", "held-out dealt"]
SOURCES += [pytest.param(name, marks=pytest.mark.slow) for name in ("folder", "records", "dealt")]


def collect(dataset, count=None):
    """The elements of a dataset, images left out, as tuples of `KEYS` that they have."""
    elements = itertools.islice(dataset.as_numpy_iterator(), count)
    return [tuple(int(element[key]) for key in KEYS if key in element) for element in elements]


@pytest.fixture(params=SOURCES)
def source(request, few_digits, image_folder, squares, unsplit_squares, monkeypatch):
    if request.param == "digits":
        return few_digits
    if request.param == "folder":
        return open_source(f"folder:{image_folder}", holdout=0.25)
    if "dealt" in request.param:
        monkeypatch.setattr("pit_keras.data.records.FILES_PER_WORKER", 1)
    folder = unsplit_squares if "held-out" in request.param else squares
    return open_source("squares", data_dir=folder, holdout=0.2)


@pytest.fixture
def dealt(squares, monkeypatch):
    """40 records in four files, dealt to up to four workers."""
    monkeypatch.setattr("pit_keras.data.records.FILES_PER_WORKER", 1)
    return open_source("squares", data_dir=squares)


@pytest.mark.parametrize(("count", "block"), [(1, 1), (1, 5), (2, 1), (3, 4)])
def test_shards_part_the_positions_in_blocks(count, block):
    owners = [position // block % count for position in range(60)]
    for index in range(count):
        shard = Shard(index, count, block)
        own = [position for position, owner in enumerate(owners) if owner == index]
        assert [position for position in range(60) if shard.holds(position)] == own
        assert [shard.position_of(number) for number in range(len(own))] == own
        numbers = tf.range(len(own), dtype=tf.int64)
        np.testing.assert_array_equal(shard.position_of(numbers), own)
        for position in range(61):
            assert shard.examples_before(position) == sum(p < position for p in own)


def test_the_shards_of_an_epoch_are_disjoint_and_complete(source):
    size, count, block = source.sizes["train"], 2, 4  # the records fill an epoch, others nearly
    length = size - size % (count * block)
    part = length // count
    drawn = []
    for index in range(count):
        shard = Shard(index, count, block)
        own = collect(source.train_stream(1, length=length, shard=shard), 2 * part)
        assert [element[3] for element in own] == [shard.position_of(n) for n in range(2 * part)]
        assert [element[2] for element in own] == [0] * part + [1] * part
        drawn.append([element[0] for element in own])
    for epoch in (slice(part), slice(part, None)):
        ids = [example for own in drawn for example in own[epoch]]
        assert len(set(ids)) == length
    if length == size:
        assert set(ids) == {element[0] for element in collect(source.scan("train"))}


@pytest.mark.parametrize("views", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_without_files_to_deal_the_shards_are_the_stream_of_one_worker(
    image_folder, squares, views
):
    for source in (
        open_source(f"folder:{image_folder}"),
        open_source("squares", data_dir=squares),
    ):
        whole = collect(source.train_stream(1, length=16, views=views), 48)
        shards = [Shard(index, 2, 4) for index in range(2)]
        parts = [
            collect(source.train_stream(1, length=16, views=views, shard=shard), 24)
            for shard in shards
        ]
        assert sorted(itertools.chain(*parts), key=lambda element: element[3]) == whole


@pytest.mark.parametrize(("index", "views"), [(0, 1), (1, 3)])
def test_the_stream_of_a_shard_from_a_position_is_the_tail_of_the_whole(source, index, views):
    shard = Shard(index, 2, 4)
    whole = collect(source.train_stream(5, length=16, views=views, shard=shard), 20)
    for start in (3, 30):
        tail = source.train_stream(5, start=start, length=16, views=views, shard=shard)
        expected = [element for element in whole if element[3] >= start]
        assert collect(tail, len(expected)) == expected


def test_a_worker_gives_the_views_of_its_own_records_in_succession(dealt):
    for index in range(2):
        own = collect(dealt.train_stream(2, length=32, views=3, shard=Shard(index, 2, 8)), 32)
        for epoch in (own[:16], own[16:]):
            ids, seen = [element[0] for element in epoch], [element[4] for element in epoch]
            assert seen == [0, 1, 2] * 5 + [0]
            assert ids == [ids[n - n % 3] for n in range(16)]
            assert len(set(ids)) == 6


def test_every_record_is_as_likely_to_be_drawn_for_the_views_of_a_worker(dealt, monkeypatch):
    """Also where the buffer holds few records, and so the first of each file leave it first."""
    monkeypatch.setattr("pit_keras.data.records.SHUFFLE_BUFFER", 2)
    drawn = np.zeros(40)
    for index in range(2):
        shard = Shard(index, 2, 20)
        stream = dealt.train_stream(0, views=4, shard=shard).take(30 * 20)
        drawn += np.bincount([element[0] for element in collect(stream)], minlength=40) / 4
    np.testing.assert_allclose(drawn, 7.5, atol=8.5)  # 3.6 standard deviations


@pytest.mark.parametrize(("count", "block"), [pytest.param(2, 3, marks=pytest.mark.slow), (3, 2)])
def test_the_shards_of_a_scan_give_each_example_once(source, count, block):
    for split, size in source.sizes.items():
        limit = -(-size // (count * block)) * block
        parts = [collect(source.scan(split, Shard(n, count, block))) for n in range(count)]
        assert max(map(len, parts)) <= limit
        assert sorted(itertools.chain(*parts)) == sorted(collect(source.scan(split)))


def test_a_worker_reads_only_the_files_dealt_to_it(store_records, monkeypatch):
    monkeypatch.setattr("pit_keras.data.records.FILES_PER_WORKER", 2)
    folder = store_records()
    source = open_source("squares", data_dir=folder)
    files, shard = source.splits["train"].files, Shard(1, 2, 4)

    def first_epoch():
        own = collect(source.train_stream(0, shard=shard, length=40), 20)
        return [source.describe("train", element[0]).split(" of ")[1] for element in own]

    names = first_epoch()
    others = [file for file in files if os.path.basename(file) not in names]
    assert others
    for file in others:
        with open(file, "wb") as damaged:
            damaged.write(b"not a record")
    assert first_epoch() == names


def test_files_are_dealt_anew_in_each_epoch(dealt):
    own = collect(dealt.train_stream(0, length=40, shard=Shard(0, 2, 20)), 120)
    epochs = [{element[0] for element in own[start : start + 20]} for start in (0, 20, 40)]
    assert len(set(map(frozenset, epochs))) > 1


def take(batches, count=None):
    return list(itertools.islice(batches.as_numpy_iterator(), count))


def assert_identical(first, second):
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@pytest.fixture(scope="module")
def together():
    """Three steps of four replicas of one worker."""
    config = DataConfig(image_size=(24, 24), cutmix_alpha=1.0)
    source = open_source("digits")
    return take(train_batches(source, config, batch_size=12, seed=0, replicas=4), 12)


def test_replicas_take_the_same_batches_however_they_are_spread_over_workers(config, together):
    source = open_source("digits")
    assert {batch["image"].shape for batch in together} == {(3, 24, 24, 3)}
    assert [int(batch["position"][-1]) for batch in together] == list(range(3, 37, 3))
    settings = {"batch_size": 12, "seed": 0, "replicas": 4}
    for worker in range(2):
        own = train_batches(source, config, **settings, worker=worker, workers=2)
        expected = [
            together[4 * step + 2 * worker + replica] for step in range(3) for replica in range(2)
        ]
        assert_identical(take(own, 6), expected)


def test_images_are_mixed_within_the_batch_of_a_replica(config, together):
    small = take(train_batches(open_source("digits"), config, batch_size=3, seed=0), 12)
    assert_identical(together, small)  # an epoch of 1428 of 1437, or of all: alike at its beginning


def test_a_worker_resumes_with_its_own_next_example(config, dealt):
    settings = {"batch_size": 8, "seed": 4, "replicas": 2, "worker": 1, "workers": 2}
    whole = take(train_batches(dealt, config, **settings), 7)
    start = int(whole[5]["position"][-1])  # in the second epoch
    assert_identical(take(train_batches(dealt, config, **settings, start=start), 1), whole[6:])


def test_a_skipped_image_shifts_the_stream_of_its_worker_only(make_folder, config):
    source = open_source(f"folder:{make_folder()}", holdout=0.2)
    shards = [Shard(worker, 2, 3) for worker in range(2)]
    drawn = [collect(source.train_stream(0, length=18, shard=shard), 18) for shard in shards]
    broken = source.describe("train", drawn[0][1][0])
    os.remove(broken)
    reports = [UnreadableImages() for _ in shards]
    batches = [
        take(
            train_batches(
                source,
                config,
                batch_size=6,
                seed=0,
                replicas=2,
                worker=worker,
                workers=2,
                unreadable=reports[worker],
            ),
            2,
        )
        for worker in range(2)
    ]
    ids = [list(map(int, np.concatenate([batch["id"] for batch in own]))) for own in batches]
    assert ids[0] == [drawn[0][n][0] for n in (0, 2, 3, 4, 5, 6)]
    assert ids[1] == [drawn[1][n][0] for n in range(6)]
    assert reports[0].positions == {broken: 1}
    assert type(reports[0].positions[broken]) is int


@pytest.mark.parametrize(
    ("split", "replicas", "workers"),
    [
        ("train", 4, 2),
        ("val", 4, 1),
        pytest.param("train", 4, 1, marks=pytest.mark.slow),
        pytest.param("val", 4, 2, marks=pytest.mark.slow),
    ],
)
def test_evaluation_counts_every_example_once_over_all_workers(
    config, dealt, split, replicas, workers
):
    counts, ids, weight = set(), [], 0
    for worker in range(workers):
        batches = take(
            evaluation_batches(
                dealt,
                split,
                config,
                batch_size=12,
                replicas=replicas,
                worker=worker,
                workers=workers,
            )
        )
        assert {batch["image"].shape[0] for batch in batches} == {12 // replicas}
        counts.add(len(batches))
        for batch in batches:
            np.testing.assert_array_equal(batch["weight"], batch["id"] >= 0)
            ids += [int(example) for example in batch["id"] if example >= 0]
            weight += batch["weight"].sum()
    size = dealt.sizes[split]
    assert sorted(ids) == list(range(size))
    assert weight == size
    assert counts == {-(-size // 12) * replicas // workers}


def test_a_batch_that_the_replicas_do_not_divide_is_an_error(config):
    source = open_source("digits")
    message = r"\(--batch_size\) must be .* number of replicas, 3; got 8"
    with pytest.raises(ValueError, match=message):
        check_train_batches(source, config, 8, replicas=3)
    message = r"\(--config.training.eval_batch_size\) must be .* number of replicas, 3; got 8"
    with pytest.raises(ValueError, match=message):
        evaluation_batches(source, "val", config, batch_size=8, replicas=3)


def test_the_batch_of_a_replica_must_be_large_enough_to_be_mixed(config):
    message = "need --batch_size=16 or more, two images for each replica; or set"
    with pytest.raises(ValueError, match=message):
        check_train_batches(open_source("digits"), config, 8, replicas=8)
