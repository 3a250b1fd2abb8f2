"""How long a call of an exported model takes."""

import time

import numpy as np

CALLS = 30
_WARM_UP_CALLS = 3


def median_milliseconds(call, calls=CALLS):
    """Median duration of a function's calls, after a few that are not timed."""
    seconds = []
    for _ in range(_WARM_UP_CALLS + calls):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds[_WARM_UP_CALLS:]))
