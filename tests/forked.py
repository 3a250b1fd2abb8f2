"""Programs in processes of their own, for tests, that begin where `pit_keras` is imported.

Importing TensorFlow is most of a short program's time. One process does so, and computes nothing;
each program is a fork of it, so that nothing of the tests, or of another program, is in there. What
a program does while it imports, and how it ends by a signal, are tested in processes made anew.
"""

import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tensorflow", "pit_keras.training.trainer"])


def run_script(path, *arguments):
    """What `python path arguments` does; returns a `subprocess.CompletedProcess` with text."""
    return _run(_script, str(path), [str(argument) for argument in arguments])


def run_code(code, folder="."):
    """What `python -c code` does in a folder; returns a `subprocess.CompletedProcess` with text."""
    return _run(_code, code, str(folder))


def start_script(path, arguments, log):
    """Starts what `python path arguments` does; all that it prints is added to a file.

    Returns:
        A `multiprocessing.Process` that has been started.
    """
    arguments = (str(log), str(path), [str(argument) for argument in arguments])
    process = _CONTEXT.Process(target=_logged, args=arguments)
    process.start()
    return process


def _logged(log, path, arguments):
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for each in (1, 2):
        os.dup2(descriptor, each)
    _script(path, arguments)


def _run(program, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder, name) for name in ("out", "err")]
        process = _CONTEXT.Process(target=_redirected, args=(paths, program, arguments))
        process.start()
        process.join()
        texts = [path.read_text() for path in paths]
    return subprocess.CompletedProcess(arguments, process.exitcode, *texts)


def _redirected(paths, program, arguments):
    for descriptor, path in enumerate(paths, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    program(*arguments)


def _script(path, arguments):
    sys.argv = [path, *arguments]
    sys.path.insert(0, os.path.dirname(path))
    runpy.run_path(path, run_name="__main__")


def _code(code, folder):
    os.chdir(folder)
    exec(code, {"__name__": "__main__"})
