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
    problem_of,
    read_rows,
    settings_of,
    task_of,
    write_rows,
)
from pit_keras.measure.machine import description

# On 32 x 32 pixels the position embeddings are smaller: 3 x 3 for 27 x 27, 5 for 197 positions.
PIT_TI = 4_847_272 - (27 * 27 - 3 * 3) * 64
VIT_TI = 5_717_416 - (197 - 5) * 192
SMALL = ("--image_size=32", "--batch_size=2", "--repeats=1")


def printed(capsys, *arguments):
    main(["benchmark", *map(str, arguments)])
    return capsys.readouterr().out.splitlines()


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_is_completed_and_then_not_measured_again(tmp_path, capsys):
    """What the row has already is recognisably wrong, so that measuring it again would show."""
    table, text = tmp_path / "cost.csv", tmp_path / "cost.md"
    task = task_of("vit_ti", measures=(), image_size=(32, 32), batch_size=2, repeats=1)
    known = {**dict.fromkeys(COLUMNS, ""), **settings_of(task, description())}
    write_rows([known | {"parameters": 7000, "macs": 80_000_000}], table)
    arguments = ("--measure=latency,cost,memory", f"--output={table}", *SMALL)

    lines = printed(capsys, "vit_t?", f"--markdown={text}", *arguments)

    (row,) = rows_of(table)
    assert lines[1].startswith("[1/1] vit_ti  latency_ms=")
    assert (row["parameters"], row["macs"], row["problem"]) == ("7000", "80000000", "")
    assert float(row["latency_ms"]) > 0
    assert row["images_per_second"] == row["training_step_ms"] == ""
    # Gradients and two moments in float32.
    weights_mib = 4 * VIT_TI / 2**20
    assert 3 * weights_mib < int(row["training_mib"]) < 30 * weights_mib
    assert 0 <= int(row["inference_mib"]) < int(row["training_mib"])
    how, _, header, _, cells = text.read_text().splitlines()
    assert how.startswith("`float32`, batches of 2 (latency: 1), medians of 1, tensorflow on ")
    assert header == (
        "| model | image size | parameters | MACs (G) | inference, MiB | training, MiB "
        "| latency, ms | latency ratio |"
    )
    assert cells.startswith("| vit_ti | 32x32 | 7,000 | 0.08 | ")

    row["problem"] = "training: no memory"  # of a measure that is not asked for: no failure
    write_rows([row], table)
    assert printed(capsys, "vit_ti", *arguments)[1] == f"[1/1] vit_ti  is in {table} already"
    assert rows_of(table) == [row]


def test_a_model_that_fails_is_a_row_with_the_reason(tmp_path, capsys):
    table = tmp_path / "cost.csv"
    arguments = ("--image_size=32", "--batch_size=1000000000", "--measure=throughput,cost")
    with pytest.raises(SystemExit) as end:
        main(["benchmark", "pit_ti", "vit_ti", *arguments, f"--output={table}"])
    sentence = str(end.value)
    assert sentence.startswith("error: Not all could be measured: pit_ti (throughput: ")
    assert "; vit_ti (throughput: " in sentence
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:] == [f"Written to {table}"]
    assert [line.split()[1] for line in lines[1:3]] == ["pit_ti", "vit_ti"]
    for row, parameters in zip(rows_of(table), (PIT_TI, VIT_TI), strict=True):
        assert row["parameters"] == str(parameters)
        assert row["images_per_second"] == ""
        assert row["problem"].startswith("throughput: ")
        assert "Unable to allocate" in row["problem"]


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
    """Of the installed command, whose first line sees it."""
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
        "error: Keras cannot use its backend in a process that measures (ValueError: Unable to "
        "import backend : nonsense); set KERAS_BACKEND to tensorflow, jax or torch, which has to "
        "be installed."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pit_l"], "No model matches 'pit_l'; models are detr_pit_s, "),
        (["detr_pit_s"], "detr_pit_s is a detector, whose training step is measured by"),
        (["pit_s", "--image_size=8"], "8 x 8 pixels is smaller than one patch of 16 x 16"),
        (["--output=nowhere/cost.csv"], "--output=nowhere/cost.csv cannot be written: there is no"),
        (["--markdown=."], "--markdown=. is a folder; give the name of a file."),
        (
            ["--output=cost.csv", "--markdown=./cost.csv"],
            "--output and --markdown name the same file, ./cost.csv.",
        ),
        (["--output=README.md"], "README.md is not a table of `pit-keras benchmark`; give the"),
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
        ("--measure=cost,speed", "training, not 'speed'; separate several by commas"),
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
