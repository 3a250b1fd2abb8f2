"""Names what a command is waiting for, on a terminal only and never among the results."""

import contextlib
import sys

from rich.console import Console

_bars = None  # the bars on the terminal, while there are any


class Terminal(Console):
    """A console whose cursor stays: Ctrl-C may end the process at once, and nothing shows it."""

    def show_cursor(self, show=True):
        return False


@contextlib.contextmanager
def waiting(words, total=None):
    """Shows `words` on standard error until its end, with a bar where a `total` is known.

    Gives a function of how much of the total is done. Waits within a wait are shown below it.
    """
    global _bars
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    if sys.stderr is None or not Terminal(stderr=True).is_terminal:
        yield lambda done, *_: None
        return
    outermost = _bars is None
    if outermost:
        _bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=Terminal(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # a file's output must not come to the terminal
        )
        _bars.start()
    task = _bars.add_task(words, total=total)
    try:
        yield lambda done, *_: _bars.update(task, completed=done)
    finally:
        _bars.remove_task(task)
        if outermost:
            _bars.stop()
            _bars = None


def counted(items, words, total=None):
    """The items, and a bar of their number while they are taken."""
    with waiting(words, len(items) if total is None else total) as show:
        for number, item in enumerate(items, 1):
            yield item
            show(number)


@contextlib.contextmanager
def paused():
    """Within it the waits around it are not shown: something else writes to the terminal."""
    if _bars is not None:
        _bars.stop()
    try:
        yield
    finally:
        if _bars is not None:
            _bars.start()
