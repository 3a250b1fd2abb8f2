"""What a user sees when the input is wrong: one sentence and a non-zero exit."""

import contextlib
import os
import pathlib
import re
import signal
import sys
import tempfile
import threading
import time
import traceback

SECONDS_OF_ONE_WISH = 0.5  # a terminal and a wrapper each send a signal
_COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@contextlib.contextmanager
def exit_with_one_sentence(*errors):
    """Ends the program with the message of an error in the input, without a traceback.

    Wrap it around the reading of input (flags, files, folders, names), not around long work: an
    error in there is ours, and its traceback is wanted. `errors` are by default those of input.
    """
    errors = errors or (ValueError, OSError, ImportError)
    try:
        yield
    except BrokenPipeError:
        raise
    except errors as error:
        sys.exit(f"error: {one_line(error)}")


@contextlib.contextmanager
def end_quietly():
    """Ends the program without a traceback on Ctrl-C, and when nobody reads its output any more."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        print("Interrupted.", file=sys.stderr)
        traceback.clear_frames(error.__traceback__)  # temporary folders go with what holds them
        end_at_once(130)  # 128 + SIGINT, as shells count
    except BrokenPipeError:
        # At its end Python writes what is left once more, and nobody reads that either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def end_at_once(status=0):
    """Ends the process; Python's own end waits for what TensorFlow still computes."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(status)


def ending_signals():
    """Ctrl-C, SIGTERM, and SIGHUP, a lost connection, unless it is ignored as with nohup."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return signal.SIGINT, signal.SIGTERM, *([] if is_ignored else [signal.SIGHUP])


def at_once():
    """A context that Ctrl-C ends at once; as an exception TensorFlow may hold or swallow it."""
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return handled_signals(signal.SIG_DFL, [signal.SIGINT] if is_usual else [])


@contextlib.contextmanager
def handled_signals(handler, numbers):
    """Lets a function handle signals within it, in the main thread, the only one that can."""
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


@contextlib.contextmanager
def undone_at_the_end():
    """A context whose unfinished work is undone after Ctrl-C, SIGTERM or SIGHUP."""
    numbers = ending_signals()
    words = "Stopping after what is being computed. Press Ctrl-C again to quit at once."
    handled = handled_signals(signal.default_int_handler, numbers)
    with answered_signals(numbers, lambda _: words), handled:
        yield


@contextlib.contextmanager
def answered_signals(numbers, answer):
    """Within it, a thread prints `answer(number)` as soon as one of some signals comes.

    Python's handlers wait for TensorFlow's code, which compiles for a minute. For the same reason a
    later SIGINT or SIGTERM ends the process here.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    thread = threading.Thread(target=_answer, args=(reading, {*numbers}, answer), daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writing, b"\0")
        thread.join()
        os.close(reading)
        os.close(writing)


def _answer(reading, numbers, answer):
    first = None
    while number := os.read(reading, 1)[0]:
        if first is None and number in numbers:
            first = time.monotonic()
            with contextlib.suppress(OSError):  # a lost terminal; `sys.stderr` may be no file
                os.write(2, f"\n{answer(number)}\n".encode())
            continue
        is_later = first is not None and time.monotonic() - first > SECONDS_OF_ONE_WISH
        if is_later and number in (signal.SIGINT, signal.SIGTERM):
            os._exit(128 + number)


def require_tensorflow(what):
    """Checks that Keras runs on TensorFlow, for `what` its other backends cannot do."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{what} needs Keras' TensorFlow backend, and Keras runs on {keras.backend.backend()}; "
            "set KERAS_BACKEND=tensorflow."
        )


def check_can_write(path, option=None):
    """Checks that a file, which may exist, can be written; leaves no trace.

    `option` is the flag that names the file, such as "--output"; None for a file of a fixed name.
    """
    path = pathlib.Path(path)
    named = f"{path}" if option is None else f"{option}={path}"
    if path.is_dir():
        remedy = "move it away" if option is None else "give the name of a file"
        raise IsADirectoryError(f"{named} is a folder; {remedy}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{named} cannot be written: there is no folder {path.parent}.")
    try:
        if path.exists():
            path.open("ab").close()
        else:
            tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(f"{named} cannot be written: {error.strerror}.") from error


def check_outputs(outputs):
    """Checks, before long work, files to write, {option: path or None}: each can be, and once."""
    for option, path in outputs.items():
        if path is not None:
            check_can_write(path, option)
    check_different_files(outputs)


def check_different_files(outputs):
    options = {}
    for option, path in outputs.items():
        if path is not None:
            other = options.setdefault(pathlib.Path(path).resolve(), option)
            if other != option:
                raise ValueError(f"{other} and {option} name the same file, {path}.")


def one_line(error):
    """The message of an error in one line; an operating system's without its number."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        file = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        message = f"{file}{error.strerror}."
    return visible(" ".join(line.strip() for line in message.splitlines() if line.strip()))


def visible(text):
    """Text of strangers, such as names of files and classes, that cannot command a terminal.

    Control characters, and those that turn or break a line, are written as Python writes them.
    """
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def visible_lines(text):
    return "\n".join(map(visible, str(text).splitlines()))
