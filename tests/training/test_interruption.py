import io
import os
import signal
import threading

import pytest

from pit_keras.training.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_next_would_end_the_process(number, capfd, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())  # as in a notebook: no file with a number
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert interruption.signal is None
        os.kill(os.getpid(), number)
        assert interruption.signal == number.name
        assert all(signal.getsignal(each) == signal.SIG_DFL for each in Interruption.SIGNALS)
    assert signal.getsignal(number) == before
    assert "Press Ctrl-C again to quit without saving" in capfd.readouterr().err


def test_a_thread_notes_nothing_and_leaves_the_handlers():
    before, found = signal.getsignal(signal.SIGTERM), []

    def enter():
        with Interruption() as interruption:
            found.append((interruption.signal, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(None, before)]
