"""Flags of the analysis script: a mistake in one ends the program with one sentence."""

import re
import sys

from absl import flags


def parse_or_exit(argv):
    """Parses the flags of the process, for `absl.app.run`; returns what is left of `argv`."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {_in_own_words(str(error))}")


def _in_own_words(message):
    """The parsers' message on a text that is no number is Python's, that on a lacking flag odd."""
    lacking = re.match(r"flag --(\w+)=None: Flag --\w+ must have a value", message)
    if lacking:
        return f"--{lacking[1]} must be given; --help lists all flags."
    match = re.match(r"flag --(\w+)=(.*): (invalid literal|could not convert)", message, re.DOTALL)
    if match is None:
        return " ".join(message.split())
    form = "a whole number" if match[3] == "invalid literal" else "a number"
    return f"--{match[1]} must be {form}; got {match[2]!r}."


def numbers_of(flag, texts):
    """The numbers that a flag lists, as a tuple.

    Raises:
        ValueError: If one of the texts is no number.
    """
    try:
        return tuple(float(text) for text in texts)
    except ValueError:
        raise ValueError(
            f"--{flag} must be numbers with commas between; got {','.join(texts)!r}."
        ) from None
