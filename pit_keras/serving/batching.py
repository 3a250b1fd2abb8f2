"""Requests that wait at the same time are computed together, by one thread."""

import collections
import collections.abc
import concurrent.futures
import dataclasses
import threading


@dataclasses.dataclass(frozen=True)
class Work:
    """One kind of work.

    Attributes:
        function: A list of items to as many results, in their order.
        most: Items that it takes at once.
    """

    function: collections.abc.Callable
    most: int


class Batcher:
    """Gathers items into batches and computes them one batch at a time.

    The thread never waits for a batch to fill: it takes what came while it computed. So an item
    alone is computed at once, and the more there are, the larger the batches.

    Args:
        works: By name, each `Work`. A batch is of one name, the one that has waited longest.

    Attributes:
        batches: How many were computed.
        largest: Size of the largest.
    """

    def __init__(self, works):
        self.batches = 0
        self.largest = 0
        self._works = works
        self._waiting = {name: collections.deque() for name in works}
        self._arrivals = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._compute_all, name="model", daemon=True)
        self._thread.start()

    def submit(self, name, item):
        """Lets an item wait for its turn.

        Returns:
            A `concurrent.futures.Future` of its result, or of the error that its batch ended in.

        Raises:
            RuntimeError: After `close`.
        """
        future = concurrent.futures.Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("The batcher is closed.")
            self._waiting[name].append((self._arrivals, item, future))
            self._arrivals += 1
            self._changed.notify()
        return future

    def close(self):
        """Computes what waits, and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _compute_all(self):
        while batch := self._next_batch():
            name, items, futures = batch
            if not items:
                continue
            self.batches += 1
            self.largest = max(self.largest, len(items))
            try:
                results = list(zip(futures, self._works[name].function(items), strict=True))
            except Exception as error:  # whatever it is, those who wait are told, and others served
                for future in futures:
                    future.set_exception(error)
            else:
                for future, result in results:
                    future.set_result(result)

    def _next_batch(self):
        """Name, items and futures, as soon as there are any; None when closed and all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or any(self._waiting.values()))
            waiting = {name: queue for name, queue in self._waiting.items() if queue}
            if not waiting:
                return None
            name = min(waiting, key=lambda name: waiting[name][0][0])
            count = min(len(waiting[name]), self._works[name].most)
            taken = [waiting[name].popleft() for _ in range(count)]
        # A future that was cancelled meanwhile would not take a result.
        kept = [
            (item, future) for _, item, future in taken if future.set_running_or_notify_cancel()
        ]
        return name, [item for item, _ in kept], [future for _, future in kept]
