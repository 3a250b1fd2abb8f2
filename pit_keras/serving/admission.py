"""Who is let in: a fixed number of places for images, and an answer at once where none is free."""

import contextlib

from starlette.exceptions import HTTPException

BUSY = "The server is busy; try again in a moment."
RETRY_AFTER_SECONDS = 1


class Places:
    """Places for images in the server. For one thread, that of the event loop.

    Attributes:
        free: How many there are now.
        refused: How often a request found none.
    """

    def __init__(self, count):
        self.free = count
        self.refused = 0

    @contextlib.contextmanager
    def holding_one(self):
        """Holds a place within it; gives a function that takes that many more till the end.

        Raises:
            HTTPException: 503, at the start and of the function, if there are not as many.
        """
        held = 0

        def take(count):
            nonlocal held
            if count > self.free:
                self.refused += 1
                headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
                raise HTTPException(503, BUSY, headers)
            self.free -= count
            held += count

        take(1)
        try:
            yield take
        finally:
            self.free += held
