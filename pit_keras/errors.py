"""What a user sees when the input is wrong: one sentence and a non-zero exit."""

import contextlib
import os
import pathlib
import signal
import sys
import tempfile


@contextlib.contextmanager
def exit_with_one_sentence(*errors):
    """Ends the program with the message of an error that the user can mend, without a traceback.

    Wrap it around the reading of input (flags, files, folders, names), not around long work: an
    error in there is ours, and its traceback is wanted.

    Args:
        *errors: Classes of the errors that a user can mend; by default those of reading input.
    """
    mendable = errors or (ValueError, OSError, ImportError)
    try:
        yield
    except BrokenPipeError:
        raise
    except mendable as error:
        sys.exit(f"error: {_sentence(error)}")


@contextlib.contextmanager
def end_quietly():
    """Ends the program without a traceback on Ctrl-C, and when nobody reads its output any more."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)  # 128 + SIGINT, as shells count
    except BrokenPipeError:
        # At its end Python writes what is left once more, and nobody reads that either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@contextlib.contextmanager
def sigterm_as_ctrl_c():
    """Within it, SIGTERM is as Ctrl-C, so that what is to be undone is undone."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_can_write(path, option):
    """Checks, before long work, that a file can be written; leaves no trace.

    Args:
        path: The file, which may exist.
        option: What the user knows it by, such as "--output".

    Raises:
        OSError: If it cannot be written; the sentence says why.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{option}={path} is a folder; give the name of a file.")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{option}={path} cannot be written: there is no folder {path.parent}."
        )
    try:
        if path.exists():
            path.open("ab").close()
        else:
            tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(f"{option}={path} cannot be written: {error.strerror}.") from error


def check_different_files(outputs):
    """Checks, before long work, that no output would overwrite another of the same call.

    Args:
        outputs: What is to be written, by the option that names it; None where nothing is.

    Raises:
        ValueError: If two are the same file, however they are spelled; it names both options.
    """
    options = {}
    for option, path in outputs.items():
        if path is not None:
            other = options.setdefault(pathlib.Path(path).resolve(), option)
            if other != option:
                raise ValueError(f"{other} and {option} name the same file, {path}.")


def _sentence(error):
    """The message of an error in one line; an operating system's without its number."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        file = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        message = f"{file}{error.strerror}."
    return " ".join(line.strip() for line in message.splitlines() if line.strip())
