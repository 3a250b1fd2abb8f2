"""Ctrl-C and the signals of terminals and schedulers, noted so that training can save first."""

import contextlib
import os
import select
import signal
import time

from pit_keras import errors


class TrainingInterrupted(Exception):
    """A signal stopped the run, and its state is saved."""


class Interruption(contextlib.ExitStack):
    """A context that notes the first SIGINT, SIGTERM or SIGHUP, or `also` that signal, by name.

    Signals within half a second are one. Later SIGINT or SIGTERM ends the process at once; what
    only announces an end does not. `signal` is the name of the one that came, or None. As long as
    `has_nothing_to_save` is set, the first one ends a program that Ctrl-C would have ended without
    this context. Only the main thread of a process gets signals; in other threads nothing is noted.
    """

    def __init__(self, also=None):
        super().__init__()
        self.signal, self.has_nothing_to_save = None, False
        also = [signal.Signals[f"SIG{also}"]] if also else []
        self._numbers = {*errors.ending_signals(), *also}

    def __enter__(self):
        self._may_end = signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # in no notebook
        self.enter_context(errors.answered_signals(self._numbers, self._answer))
        self.enter_context(errors.handled_signals(self._note, self._numbers))
        return self

    def _answer(self, number):
        if self.has_nothing_to_save and self._may_end:
            words = "Stopped before the first step: nothing is lost, the same command starts again."
            with contextlib.suppress(OSError):
                os.write(2, f"\n{words}\n".encode())
            os._exit(128 + number)
        return "Saving after this step. Press Ctrl-C again to quit without saving."

    def _note(self, number, _):
        if self.signal:
            return
        self.signal = signal.Signals(number).name
        time.sleep(errors.SECONDS_OF_ONE_WISH)
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
