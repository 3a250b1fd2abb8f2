"""The command `pit-keras`: train networks, look at them, use and deploy them."""

import argparse
import contextlib
import importlib
import os
import sys
import warnings

import pit_keras
from pit_keras.commands import startup
from pit_keras.errors import at_once, end_quietly, exit_with_one_sentence, visible_lines

# Modules of `commands` by group. Only the one that is chosen is imported.
COMMANDS = {
    "Train": {
        "plan": "say how long training on a folder will take here",
        "train": "train a classifier, or resume its run",
        "detect": "train a detector, or resume its run",
        "sweep": "train families of models at equal cost",
    },
    "Look": {
        "check": "find what is wrong with a folder of images",
        "models": "list the models with their size and cost",
        "benchmark": "measure what models cost on this machine",
        "runs": "compare training runs",
        "analyze": "measure how far a model's blocks look",
    },
    "Use": {
        "predict": "name what is in pictures, or find its objects",
        "evaluate": "measure accuracy, or COCO's metrics, on a data set",
    },
    "Deploy": {
        "convert": "turn a checkpoint into a .keras file",
        "export": "write a model in forms that need no Keras",
        "serve": "try a model in a browser and over HTTP",
    },
}
WITH_ABSL_FLAGS = ("plan", "train", "detect", "sweep", "analyze")


def main(arguments=None, command=None):
    """Runs one command.

    Args:
        arguments: By default those of the process.
        command: The name that comes before them, of a script in `train/`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    arguments = arguments if command is None else [command, *arguments]
    # Names of files and classes may hold what the terminal's encoding lacks.
    sys.stdout.reconfigure(errors="backslashreplace")
    with end_quietly(), at_once():
        startup.import_quietly()
        if "_ARGCOMPLETE" in os.environ:
            _complete()
        if arguments and arguments[0] in WITH_ABSL_FLAGS:
            return _run_with_absl(*arguments)
        with exit_with_one_sentence(), _warnings_in_one_sentence():
            parser = _parser(*arguments[:1])
            if not arguments:
                parser.print_help(sys.stderr)
                sys.exit(2)
            options = parser.parse_args(arguments)
            options.run(options)


def _run_with_absl(name, *arguments):
    from absl import app, logging

    module = importlib.import_module(f"pit_keras.commands.{name}")

    def run(arguments):
        logging.set_verbosity(logging.WARNING)
        module.run(arguments)

    app.run(run, argv=[sys.argv[0], *arguments], flags_parser=module.parse)


@contextlib.contextmanager
def _warnings_in_one_sentence():
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"{visible_lines(message)}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _parser(chosen=None):
    """A parser of all commands that knows the options of the chosen one."""
    lines = ["Train networks, look at them, use and deploy them."]
    for group, summaries in COMMANDS.items():
        lines += ["", f"{group}:", *(f"  {name:<10} {text}" for name, text in summaries.items())]
    parser = argparse.ArgumentParser(
        prog="pit-keras",
        usage="pit-keras COMMAND ...",
        description="\n".join(lines),
        epilog="pit-keras COMMAND --help lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=pit_keras.__version__)
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", prog="pit-keras", help=argparse.SUPPRESS
    )
    for name, text in (pair for group in COMMANDS.values() for pair in group.items()):
        command = commands.add_parser(name, description=f"{text[0].upper()}{text[1:]}.")
        if name == chosen:
            module = importlib.import_module(f"pit_keras.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def _complete():
    """Answers a shell that asks how a command line may go on; see docs/get_started.md."""
    import argcomplete

    typed = os.environ["COMP_LINE"].split()
    argcomplete.autocomplete(_parser(*typed[1:2]))
