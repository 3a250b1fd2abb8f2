import threading

import pytest

from pit_keras.serving.batching import Batcher, Work


class Slow:
    """Doubles numbers, notes the batches, and computes none before it is let."""

    def __init__(self):
        self.batches, self.let, self.begun = [], threading.Event(), threading.Event()

    def __call__(self, items):
        self.batches.append(list(items))
        self.begun.set()
        assert self.let.wait(60)
        return [2 * item for item in items]


def test_what_waits_together_is_computed_together_and_answered_apart():
    slow = Slow()
    batcher = Batcher({"double": Work(slow, 4)})
    futures = [batcher.submit("double", 0)]
    assert slow.begun.wait(60)
    futures += [batcher.submit("double", item) for item in range(1, 10)]
    slow.let.set()
    assert [future.result(60) for future in futures] == [2 * item for item in range(10)]
    assert slow.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]
    assert (batcher.batches, batcher.largest) == (4, 4)
    batcher.close()


def test_kinds_of_work_do_not_mix_and_the_longest_waiting_comes_first():
    slow, order = Slow(), []
    other = Work(lambda items: order.append(tuple(items)) or items, 1)
    batcher = Batcher({"double": Work(slow, 4), "other": other})
    first = batcher.submit("double", 0)
    assert slow.begun.wait(60)
    futures = [
        batcher.submit(*each) for each in (("other", 1), ("double", 2), ("other", 3), ("double", 4))
    ]
    slow.let.set()
    assert [future.result(60) for future in [first, *futures]] == [0, 1, 4, 3, 8]
    assert slow.batches == [[0], [2, 4]]
    assert order == [(1,), (3,)]
    batcher.close()


def test_an_error_reaches_those_of_its_batch_and_no_others():
    def inverse(items):
        return [1 / item for item in items]

    batcher = Batcher({"inverse": Work(inverse, 1), "short": Work(lambda items: [], 1)})
    futures = [batcher.submit("inverse", item) for item in (2, 0, 4)]
    assert futures[0].result(60) == 0.5
    with pytest.raises(ZeroDivisionError):
        futures[1].result(60)
    assert futures[2].result(60) == 0.25
    with pytest.raises(ValueError, match="zip"):
        batcher.submit("short", 1).result(60)
    assert batcher.submit("inverse", 8).result(60) == 0.125
    batcher.close()


def test_closing_finishes_what_waits():
    slow = Slow()
    batcher = Batcher({"double": Work(slow, 2)})
    futures = [batcher.submit("double", item) for item in range(5)]
    assert slow.begun.wait(60)
    futures[4].cancel()
    closing = threading.Thread(target=batcher.close)
    closing.start()
    slow.let.set()
    closing.join(60)
    assert [future.result(0) for future in futures[:4]] == [0, 2, 4, 6]
    assert all(batches != [4] for batches in slow.batches)
    with pytest.raises(RuntimeError, match="shutdown"):
        batcher.submit("double", 1)
