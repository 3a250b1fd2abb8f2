"""How a command starts: what TensorFlow remarks while it is imported is held back."""

import contextlib
import functools
import os
import pathlib
import shlex
import signal
import sys
import tempfile

from pit_keras.registration import ImportHook


@contextlib.contextmanager
def held_back_stderr():
    """Drops what is written to standard error, unless there is an error.

    TensorFlow's own code writes there before any level of its log counts. Ctrl-C ends the process
    at once, as an import that is interrupted may fail in any way.
    """
    sys.stderr.flush()
    stderr, on_interrupt = os.dup(2), signal.getsignal(signal.SIGINT)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        if on_interrupt is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            signal.signal(signal.SIGINT, on_interrupt)
            os.dup2(stderr, 2)
            os.close(stderr)


@functools.cache
def import_quietly():
    """Lets Keras and TensorFlow be imported without remarks, whoever imports them first.

    A user who sets TF_CPP_MIN_LOG_LEVEL to less than 3 wants to see them.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3" and sys.stderr is not None:
        held = held_back_stderr
    else:
        held = contextlib.nullcontext

    @contextlib.contextmanager
    def quietly(name):
        with _named_wait(), _explained(name), held():
            yield
        if name == "keras":  # commands have --precision; keras.json is for other programs
            sys.modules["keras"].config.set_floatx("float32")

    ImportHook(["keras", "tensorflow"], quietly)


@contextlib.contextmanager
def _named_wait():
    """Says on a terminal why nothing happens yet; plainly, as standard error is held back."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    sys.stderr.write("Starting Keras ...")
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write("\r\x1b[2K")  # to the line's beginning, and clears it


@contextlib.contextmanager
def _explained(name):
    """Ends the program with one sentence where Keras lacks its backend."""
    try:
        yield
    except (ValueError, ImportError) as error:
        if name != "keras":
            raise
        sys.exit(
            f"error: Keras cannot use its backend ({error}); set KERAS_BACKEND to tensorflow, jax "
            "or torch, which has to be installed."
        )


def typed_command():
    """The command that started this process, as a shell takes it."""
    program = pathlib.Path(sys.argv[0])
    is_script = program.suffix == ".py" and program.name != "__main__.py"
    return shlex.join(["python", *sys.argv] if is_script else ["pit-keras", *sys.argv[1:]])
