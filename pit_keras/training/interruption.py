"""Ctrl-C and SIGTERM, noted so that training can save first."""

import os
import signal
import threading


class TrainingInterrupted(Exception):
    """A signal stopped the run, and its state is saved."""


class Interruption:
    """A context that notes the first SIGINT or SIGTERM; a second one ends the process at once.

    `signal` is the name of the one that came, or None. Only the main thread of a process gets
    signals; in other threads nothing is noted.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.signal = None
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        self.signal = signal.Signals(number).name
        # Not `print`, which the signal may have interrupted, nor `sys.stderr`, maybe no file.
        line = b"\nSaving after this step. Press Ctrl-C again to quit without saving.\n"
        os.write(2, line)
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_DFL)
