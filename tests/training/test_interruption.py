import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from pit_keras import errors
from pit_keras.errors import ending_signals
from pit_keras.training.interruption import Interruption

ENDING = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(errors, "SECONDS_OF_ONE_WISH", 0.1)


@pytest.mark.parametrize("number", [*ENDING, signal.SIGHUP, signal.SIGUSR1])
def test_the_first_signal_is_noted_and_the_next_would_end_the_process(number, capfd, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())  # as in a notebook: no file with a number
    before = signal.getsignal(number)
    with Interruption("USR1") as interruption:
        assert interruption.signal is None
        os.kill(os.getpid(), number)
        assert interruption.signal == number.name
        assert all(signal.getsignal(each) == signal.SIG_DFL for each in ENDING)
        # A lost connection or a scheduler's warning comes more than once, and is no second wish.
        for each in (signal.SIGHUP, signal.SIGUSR1):
            assert signal.getsignal(each) == signal.SIG_IGN
    assert signal.getsignal(number) == before
    assert "Press Ctrl-C again to quit without saving" in capfd.readouterr().err


def test_signals_that_come_together_are_one():
    def follow():
        while interruption.signal is None:
            time.sleep(0.001)
        for number in (*ENDING, signal.SIGHUP):
            os.kill(os.getpid(), number)

    with Interruption() as interruption:
        thread = threading.Thread(target=follow)
        thread.start()
        os.kill(os.getpid(), signal.SIGINT)
        thread.join()
    assert interruption.signal == "SIGINT"


def test_a_signal_that_nobody_asked_for_keeps_its_meaning():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert ending_signals() == ENDING
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
        assert interruption.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
def test_output_that_nobody_reads_any_more_is_no_error(kind):
    code = """
import os, time
from pit_keras.training.interruption import Interruption
with Interruption() as interruption:
    print("ready", flush=True)
    while interruption.signal is None:
        time.sleep(0.01)
    print("saved", flush=True)
    os._exit(7)
"""
    reading, writing = pty.openpty() if kind == "terminal" else os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=writing, stderr=writing)
    os.close(writing)
    assert os.read(reading, 5) == b"ready"
    os.close(reading)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 7


# A main thread in compiled code, which Python's handlers wait for; it would end in an hour.
BUSY = """
import hashlib, signal, sys, threading
from pit_keras.training.interruption import Interruption
if sys.argv[1] == "new":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
with Interruption() as interruption:
    interruption.has_nothing_to_save = True
    threading.Timer(0.5, print, ["ready"], {"flush": True}).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


@pytest.mark.parametrize(
    ("state", "words"),
    [("new", "Stopped before the first step"), ("notebook", "Saving after this")],
)
def test_a_signal_is_answered_while_something_compiles(state, words):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", BUSY, state], **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n"
        assert process.stderr.readline().startswith(words)
        if state == "notebook":  # the first is a wish, and the next one an order
            time.sleep(2 * errors.SECONDS_OF_ONE_WISH + 0.5)
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT


def test_a_thread_notes_nothing_and_leaves_the_handlers():
    before, found = signal.getsignal(signal.SIGTERM), []

    def enter():
        with Interruption() as interruption:
            found.append((interruption.signal, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(None, before)]
