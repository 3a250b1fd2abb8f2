import json

import pytest
import tensorflow as tf

from pit_keras.training.workers import WorkerLostError, Workers, join_workers


def test_a_process_alone_is_the_chief_and_talks_to_itself():
    workers = join_workers()
    assert (workers.index, workers.count, workers.replicas) == (0, 1, 1)
    assert workers.is_chief
    assert workers.broadcast(b"abc") == b"abc"
    assert workers.agree({"a": [1, None]}) == {"a": [1, None]}
    assert workers.gather(3) == [3]


def test_mirrored_takes_the_devices_of_this_machine():
    workers = join_workers("mirrored")
    assert workers.replicas == len(tf.config.list_logical_devices("CPU"))
    assert (workers.index, workers.count) == (0, 1)


@pytest.mark.parametrize(("size", "nearest"), [(30, 32), (33, 32), (1, 4), (7, 8)])
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_does(size, nearest):
    workers = Workers(tf.distribute.get_strategy())
    workers.replicas = 4
    workers.check_batch(32)
    with pytest.raises(ValueError, match=f"batch of {size}; use {nearest}\\."):
        workers.check_batch(size)


A, B = "127.0.0.1:4001", "127.0.0.1:4002"
FORM = r'TF_CONFIG must be JSON of the form \{"cluster"'


@pytest.mark.parametrize(
    ("distribute", "addresses", "index", "tf_config", "message"),
    [
        ("none", [A, B], 0, None, "are for --distribute=multi_worker only"),
        ("mirrored", None, 1, None, "are for --distribute=multi_worker only"),
        ("multi_worker", None, None, None, "needs --workers=HOST:PORT"),
        ("multi_worker", [A, B], None, None, "must both be given"),
        ("multi_worker", None, 0, None, "must both be given"),
        ("multi_worker", [A, B], 2, None, "--worker must be 0 to 1, got 2"),
        ("multi_worker", [A, B], -1, None, "got -1"),
        ("multi_worker", [A, "somewhere"], 0, None, "must be HOST:PORT; got 'somewhere'"),
        ("multi_worker", [A, A], 0, None, "must have different addresses"),
        ("multi_worker", [A, B], 0, "{}", "both given; unset one"),
        ("multi_worker", None, None, "{", FORM),
        ("multi_worker", None, None, "[]", FORM),
        ("multi_worker", None, None, json.dumps({"cluster": {"worker": [A]}}), FORM),
        (
            "multi_worker",
            None,
            None,
            json.dumps({"cluster": {"worker": [A]}, "task": {"type": "worker", "index": 1}}),
            FORM,
        ),
        (
            "multi_worker",
            None,
            None,
            json.dumps({"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}),
            r"must be HOST:PORT; got 'a'",
        ),
    ],
)
def test_wrong_addresses_are_told(distribute, addresses, index, tf_config, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if tf_config is not None:
        monkeypatch.setenv("TF_CONFIG", tf_config)
    with pytest.raises(ValueError, match=message):
        join_workers(distribute, addresses, index)


LOST = tf.errors.UnavailableError(
    None, None, "Graph\n\nCollective ops is aborted by: Connection reset\nMore:\n"
)


def test_the_loss_of_a_worker_is_told_in_one_sentence():
    workers = join_workers()
    workers.count = 2
    expected = r"start all workers again .* by: Connection reset"
    with pytest.raises(WorkerLostError, match=expected), workers.must_live():
        raise LOST


def test_a_process_alone_loses_no_worker():
    with pytest.raises(tf.errors.UnavailableError), join_workers().must_live():
        raise LOST
