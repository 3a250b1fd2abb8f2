import io

import pytest

from pit_keras import waits


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def on_terminal(monkeypatch):
    """Makes standard error a terminal, which it returns; only a test itself can, beside capsys."""

    def begin():
        terminal = Terminal()
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr("sys.stderr", terminal)
        return terminal

    return begin


def test_a_wait_is_named_on_a_terminal_and_leaves_its_cursor(on_terminal, capsys):
    terminal = on_terminal()
    with waits.waiting("Opening"):
        print("a result")
        for number in waits.counted([1, 2], "Reading"):
            waits._bars.refresh()
            assert {"Opening", "Reading"} <= set(terminal.getvalue().split()), number
    assert capsys.readouterr().out == "a result\n"
    assert "\x1b[?25l" not in terminal.getvalue()  # which would hide it
    assert waits._bars is None


def test_a_wait_is_not_shown_while_another_program_has_the_terminal(on_terminal):
    terminal = on_terminal()
    with waits.waiting("Looking"), waits.paused():
        before = terminal.getvalue()
        waits._bars.update(waits._bars.task_ids[0], description="Hidden")
        assert terminal.getvalue() == before


def test_elsewhere_nothing_is_shown(capsys):
    with waits.waiting("Opening") as show:
        show(1)
        assert list(waits.counted([1, 2], "Reading")) == [1, 2]
    assert capsys.readouterr() == ("", "")
