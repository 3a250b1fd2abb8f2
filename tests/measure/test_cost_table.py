"""`pit-keras benchmark`, with models on images of 32 x 32."""

import contextlib
import csv
import os
import pathlib
import subprocess
import sys
import time

import forked
import pytest

from pit_keras.cli import main
from pit_keras.measure.cost_table import (
    COLUMNS,
    failures,
    markdown,
    markdown_table,
    problem_of,
    read_rows,
    settings_of,
    task_of,
    write_rows,
)
from pit_keras.measure.machine import description

# On 2048 x 2048 pixels the position embedding has 255 x 255 positions, not 27 x 27.
PIT_TI = 4_847_272 - (27**2 - 255**2) * 64


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def known_row(name, *columns, **values):
    """A row as an earlier benchmark wrote it; its measurements are recognisably wrong."""
    task = task_of(name, measures=(), image_size=(2048, 2048), batch_size=4096, repeats=1)
    where = settings_of(task, description())
    return dict.fromkeys(COLUMNS, "") | where | dict.fromkeys(columns, "7") | values


def test_a_row_is_completed_and_tells_what_failed_and_a_complete_one_stays(tmp_path, capsys):
    table, text = tmp_path / "cost.csv", tmp_path / "cost.md"
    latency = "latency_ms", "latency_ratio"
    all_columns = *latency, "parameters", "macs", "images_per_second", "throughput_ratio"
    # A problem of a measure that is not asked for is no failure.
    complete = known_row("vit_s", *all_columns, problem="training: no memory")
    write_rows([complete, known_row("pit_ti", *latency)], table)
    complete = rows_of(table)[0]
    arguments = (
        *("--measure=latency,cost,throughput", "--image_size=2048", "--batch_size=4096"),
        *("--repeats=1", f"--output={table}", f"--markdown={text}"),
    )

    with pytest.raises(SystemExit) as end:
        main(["benchmark", "pit_t?", "vit_s", *arguments])

    assert str(end.value).startswith("error: Not all could be measured: pit_ti (throughput: ")
    assert "vit_s" not in str(end.value)
    _, completed, kept, *written = capsys.readouterr().out.splitlines()
    assert completed.startswith(f"[1/2] pit_ti  latency_ms=7  latency_ratio=7  parameters={PIT_TI}")
    assert kept == f"[2/2] vit_s  is in {table} already"
    assert written == [f"Written to {text}", f"Written to {table}"]
    assert rows_of(table)[0] == complete
    row = rows_of(table)[1]
    assert (row["parameters"], row["images_per_second"]) == (str(PIT_TI), "")
    assert (row["latency_ms"], row["latency_ratio"]) == ("7", "7")
    assert row["problem"].startswith("throughput: ")
    assert "Unable to allocate" in row["problem"]
    header, _, cells = text.read_text().splitlines()[2:5]
    assert header.endswith("| latency, ms | latency ratio | problem |")
    macs = f"{int(row['macs']) / 1e9:.2f}"
    assert cells.startswith(
        f"| pit_ti | 2048x2048 | {PIT_TI:,} | {macs} | | | 7 | 7 | throughput: "
    )


def test_a_table_in_markdown_says_how_it_was_measured():
    row = known_row("vit_ti", "latency_ms", parameters="7000", macs="80000000")
    lines = markdown([row], ("latency", "cost")).splitlines()
    assert lines[0].startswith(
        "`float32`, batches of 4096 (latency: 1), medians of 1, tensorflow on "
    )
    assert lines[2:3] + lines[4:] == [
        "| model | image size | parameters | MACs (G) | latency, ms | latency ratio |",
        "| vit_ti | 2048x2048 | 7,000 | 0.08 | 7 | |",
    ]


def test_every_model_that_failed_is_named():
    rows = [
        known_row("pit_ti", "macs", problem="cost: no memory"),
        known_row("vit_s", "parameters", "macs", problem="training: no memory"),
        known_row("vit_ti", problem="cost: SIGKILL"),
    ]
    tasks = [task_of(row["model"], measures=("cost",)) for row in rows]
    assert failures(tasks, rows) == "pit_ti (cost: no memory); vit_ti (cost: SIGKILL)"
    assert failures(tasks[1:2], rows[1:2]) == ""


def test_sigterm_ends_the_process_that_measures_too():
    ended = forked.run_code(
        """
import os, pathlib, signal, sys, threading, time, traceback
from pit_keras.cli import main

def end_once_it_waits_for_the_other():
    while "communicate" not in calls_of_main_thread():
        time.sleep(0.01)
    print(pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

def calls_of_main_thread():
    frame = sys._current_frames()[threading.main_thread().ident]
    return [call.name for call in traceback.extract_stack(frame)]

threading.Thread(target=end_once_it_waits_for_the_other).start()
main(["benchmark", "pit_ti", "--measure=latency", "--image_size=32", "--repeats=100000"])
"""
    )
    assert (ended.returncode, ended.stderr.splitlines()[-1:]) == (130, ["Interrupted."])
    assert ended.stdout.strip().isdecimal()
    measuring = pathlib.Path("/proc", ended.stdout.strip(), "cmdline")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # when it is gone
        for _ in range(1000):  # it is killed at once, but gone only when its memory is
            if not measuring.read_bytes():
                break
            time.sleep(0.01)
        else:
            pytest.fail("The process that measures goes on.")


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("nonsense", "Unable to import backend : nonsense"),
        ("openvino", "No module named 'openvino'"),
    ],
)
def test_a_backend_that_is_not_there_is_one_sentence(backend, reason):
    """The installed command's first line sees it."""
    command = (
        "import sys; sys.argv = ['pit-keras', 'benchmark']; import pit_keras.cli as c; c.main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"error: Keras cannot use its backend ({reason}); set KERAS_BACKEND to tensorflow, jax or "
        "torch, which has to be installed."
    ]


def test_a_process_that_cannot_begin_to_measure_is_one_sentence(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "nonsense")  # too late for the process of the test
    with pytest.raises(SystemExit) as end:
        main(["benchmark", "pit_ti"])
    assert end.value.code == (
        "error: A process that measures cannot start: ValueError: Unable to import backend : "
        "nonsense."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pit_l"], "No model matches 'pit_l'; models are detr_pit_s, "),
        (["detr_pit_s"], "detr_pit_s is a detector, whose training step benchmarks/"),
        (["pit_s", "--image_size=8"], "8 x 8 pixels is smaller than one patch of 16 x 16"),
        (["--output=nowhere/cost.csv"], "--output=nowhere/cost.csv cannot be written: there is no"),
        (["--markdown=."], "--markdown=. is a folder; give the name of a file."),
        (
            ["--output=cost.csv", "--markdown=./cost.csv"],
            "--output and --markdown name the same file, ./cost.csv.",
        ),
        (["--output=README.md"], "README.md is not a table of `pit-keras benchmark`; give another"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("# Not a table\n")
    with pytest.raises(SystemExit) as end:
        main(["benchmark", *arguments])
    assert str(end.value).startswith("error: ")
    assert message in str(end.value)
    assert len(str(end.value).splitlines()) == 1
    assert (tmp_path / "README.md").read_text() == "# Not a table\n"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--measure=cost,speed", "memory, not 'speed'; separate several by commas"),
        ("--measure=", "not ''"),
        ("--precision=float64", "invalid choice: 'float64'"),
        ("--repeats=0", "must be a whole number, 1 or more; got '0'"),
    ],
)
def test_bad_options_are_named(argument, message, capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", argument])
    assert message in capsys.readouterr().err


def test_images_are_of_the_published_size_unless_told():
    task = task_of("efficientnet_b3", measures=("cost",))
    assert (task.image_size, task.reference_size) == ((300, 300), (224, 224))
    task = task_of("efficientnet_b3", measures=("cost",), image_size=(64, 96))
    assert (task.image_size, task.reference_size) == ((64, 96), (64, 96))


@pytest.mark.parametrize(
    ("status", "answers", "stderr", "problem"),
    [
        (0, [], "a warning", None),
        (-9, [], "", "the process was ended by SIGKILL, as when memory is short"),
        (1, [{"problem": "OOM: no memory\nat all"}], "a trace", "OOM: no memory"),
        (1, [], "Traceback\nImportError: no jax\n", "ImportError: no jax"),
        (1, [], "", "the process said nothing"),
    ],
)
def test_the_reason_is_one_line(status, answers, stderr, problem):
    process = subprocess.CompletedProcess([], status, stderr=stderr)
    assert problem_of(process, answers) == problem


def test_rows_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "cost.csv"
    row = dict.fromkeys(COLUMNS, "") | {"model": "pit_s", "threads": 2, "problem": 'a, "b"'}
    write_rows([row], path)
    (read,) = read_rows(path).values()
    assert read == {column: str(value) for column, value in row.items()}
    assert list(tmp_path.iterdir()) == [path]

    with path.open("a") as file:
        file.write("pit_b,too,few\n")
    with pytest.raises(ValueError, match="is not a table of `pit-keras benchmark`"):
        read_rows(path)


def test_a_table_with_an_empty_cell():
    table = markdown_table(["name", "n", "why"], [["a", "1", ""], ["b", "", "c d"]], (0, 2))
    assert table == "| name | n | why |\n|---|--:|---|\n| a | 1 | |\n| b | | c d |\n"
