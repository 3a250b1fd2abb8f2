"""The command `pit-keras`: look at models and runs, use a trained one, convert, export, serve."""

import argparse
import contextlib
import importlib
import os
import sys
import warnings

from pit_keras.errors import end_quietly, exit_with_one_sentence

# Modules of `commands`, in the order of the help.
COMMANDS = ("models", "benchmark", "runs", "predict", "evaluate", "convert", "export", "serve")


def main(arguments=None):
    """Runs one command; `arguments` are the process's by default."""
    # TensorFlow reads this when it is imported: its log would hide the command's own messages.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import keras  # noqa: F401 - whether its backend is installed
    except (ValueError, ImportError) as error:
        sys.exit(
            f"error: Keras cannot use its backend ({error}); set KERAS_BACKEND to tensorflow, jax "
            "or torch, which has to be installed."
        )
    # Names of files and classes may hold what the terminal's encoding lacks.
    sys.stdout.reconfigure(errors="backslashreplace")
    with end_quietly(), exit_with_one_sentence(), _warnings_in_one_sentence():
        options = _parser().parse_args(arguments)
        options.run(options)


@contextlib.contextmanager
def _warnings_in_one_sentence():
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _parser():
    parser = argparse.ArgumentParser(prog="pit-keras", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"pit_keras.commands.{name}").add(commands)
    return parser
