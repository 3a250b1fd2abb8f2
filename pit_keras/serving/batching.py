"""Requests that wait at the same time are computed together, by one thread."""

import collections
import collections.abc
import concurrent.futures
from typing import NamedTuple


class Work(NamedTuple):
    """A function of a list of at most `most` items, which gives as many results in their order."""

    function: collections.abc.Callable
    most: int


class Batcher:
    """Gathers items into batches and computes them one batch at a time.

    The thread never waits for a batch to fill: it takes what came while it computed. So an item
    alone is computed at once, and the more there are, the larger the batches. `works` are `Work` by
    name; a batch holds items of one name, the longest waiting first.

    `batches` is the number that was computed, `largest` the size of the largest.
    """

    def __init__(self, works):
        self.batches = self.largest = 0
        self._works = works
        self._waiting = {name: collections.deque() for name in works}
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "model")

    def submit(self, name, item):
        """A `concurrent.futures.Future` of an item's result, or of its batch's error."""
        future = concurrent.futures.Future()
        self._waiting[name].append((item, future))
        # Each item has a turn; it may find that an earlier turn has taken the item.
        self._thread.submit(self._compute, name)
        return future

    def close(self):
        """Computes what waits, and ends the thread; `submit` is an error from then on."""
        self._thread.shutdown()

    def _compute(self, name):
        waiting, work = self._waiting[name], self._works[name]
        taken = [waiting.popleft() for _ in range(min(len(waiting), work.most))]
        # A cancelled future would not take a result.
        taken = [each for each in taken if each[1].set_running_or_notify_cancel()]
        if not taken:
            return
        items, futures = zip(*taken, strict=True)
        self.batches += 1
        self.largest = max(self.largest, len(items))
        try:
            results = list(zip(futures, work.function(list(items)), strict=True))
        except Exception as error:  # for those who wait; the thread goes on
            for future in futures:
                future.set_exception(error)
        else:
            for future, result in results:
                future.set_result(result)
