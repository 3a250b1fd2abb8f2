"""Ctrl-C and the signals of terminals and schedulers, noted so that training can save first."""

import contextlib
import os
import select
import signal
import time

from pit_keras.errors import ending_signals, handled_signals

_SECONDS_OF_ONE_WISH = 0.5  # a terminal and a wrapper each send a signal


class TrainingInterrupted(Exception):
    """A signal stopped the run, and its state is saved."""


class Interruption(contextlib.ExitStack):
    """A context that notes the first SIGINT, SIGTERM or SIGHUP, or `also` that signal, by name.

    Signals within half a second are one. Later SIGINT or SIGTERM ends the process at once; what
    only announces an end does not. `signal` is the name of the one that came, or None. Only the
    main thread of a process gets signals; in other threads nothing is noted.
    """

    def __init__(self, also=None):
        super().__init__()
        self.signal = None
        self._numbers = {*ending_signals(), *([signal.Signals[f"SIG{also}"]] if also else [])}

    def __enter__(self):
        self.enter_context(handled_signals(self._note, self._numbers))
        return self

    def _note(self, number, _):
        if self.signal:
            return
        self.signal = signal.Signals(number).name
        # Not `print`, which the signal may have interrupted, nor `sys.stderr`, maybe no file.
        with contextlib.suppress(OSError):
            os.write(2, b"\nSaving after this step. Press Ctrl-C again to quit without saving.\n")
        time.sleep(_SECONDS_OF_ONE_WISH)
        _drop_lost_output()
        for each in self._numbers:
            ends = each in (signal.SIGINT, signal.SIGTERM)
            signal.signal(each, signal.SIG_DFL if ends else signal.SIG_IGN)


def _drop_lost_output():
    """Sends to nowhere what a lost terminal, or a `tee` that Ctrl-C ended, no longer takes."""
    for descriptor in (1, 2):
        poll = select.poll()
        poll.register(descriptor, 0)
        if poll.poll(0):  # hung up, or nobody reads: writing would be an error
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
