"""What a user sees when the input is wrong: one sentence and a non-zero exit."""

import contextlib
import sys


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
    except mendable as error:
        sys.exit(f"error: {error}")
