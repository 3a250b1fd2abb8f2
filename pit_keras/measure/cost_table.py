"""What models cost, as the rows of a table: counted, and measured on the machine at hand.

Each model is measured in a process of its own (`measuring.py`), so that memory is its own and one
that does not fit, or crashes, is a row that says so while the others go on.
"""

import csv
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

from pit_keras.measure.markdown import markdown_table
from pit_keras.measure.measuring import MEASURES, REFERENCE, Task
from pit_keras.models import variant_of
from pit_keras.models.detr import Detr

# What tells two rows apart; a row is measured once.
SETTINGS = (
    "model", "image_size", "batch_size", "precision", "repeats", "backend", "device", "threads",
    "versions",
)  # fmt: skip
COLUMNS = (*SETTINGS, *(column for columns in MEASURES.values() for column in columns), "problem")
_HEADINGS = {
    "macs": "MACs (G)",
    "inference_mib": "inference, MiB",
    "training_mib": "training, MiB",
    "latency_ms": "latency, ms",
    "training_step_ms": "training step, ms",
}
IMAGE_SIZE = (224, 224)  # of models whose row does not name another


def task_of(name, *, measures, image_size=None, batch_size=16, precision="float32", repeats=15):
    """What to measure of a model.

    Args:
        name: One of `list_models()`.
        measures: Some of `MEASURES`.
        image_size: Height and width; None for those that the model was published with.
        batch_size, precision, repeats: As in `Task`.

    Raises:
        ValueError: For an unknown model, images that are too small for it, or a training step of a
            detector, which `benchmarks/detectors.py` measures.
    """
    if isinstance(variant_of(name), Detr) and {"training", "memory"} & set(measures):
        raise ValueError(
            f"{name} is a detector, whose training step is measured by benchmarks/detectors.py; "
            "here give --measure=cost,throughput,latency."
        )
    size = image_size or published_size(name)
    variant_of(name).grids(size)  # refuses what is too small
    reference_size = image_size or IMAGE_SIZE
    variant_of(REFERENCE).grids(reference_size)
    return Task(name, tuple(measures), size, reference_size, batch_size, precision, repeats)


def published_size(name):
    """Height and width of the images that a model was published with."""
    side = getattr(variant_of(name), "image_size", None)
    return IMAGE_SIZE if side is None else (side, side)


def machine(precision="float32"):
    """Backend, device, threads and versions, as a process that measures finds them.

    Raises:
        ValueError: If none can be started; the sentence says why.
    """
    answers, problem = _in_fresh_process(Task(REFERENCE, (), (), (), 1, precision, 1))
    if problem:
        raise ValueError(
            f"Keras cannot use its backend in a process that measures ({problem}); set "
            "KERAS_BACKEND to tensorflow, jax or torch, which has to be installed."
        )
    return answers[0]["machine"]


def measure(task, where, row=None):
    """Measures one model, and tries what comes after a measure that fails in another process.

    Args:
        task: A `Task`.
        where: What `machine` returns.
        row: An earlier row of the same settings; what it has already is not measured again.

    Returns:
        The row, {column of `COLUMNS`: value}; "" where something was not measured, and under
        "problem" why not.
    """
    row = {**dict.fromkeys(COLUMNS, ""), **settings_of(task, where), **(row or {}), "problem": ""}
    remaining, problems = missing(task, row), []
    while remaining:
        answers, problem = _in_fresh_process(dataclasses.replace(task, measures=remaining))
        found = [answer for answer in answers if "measure" in answer]
        for answer in found:
            row |= answer["columns"]
        done = [answer["measure"] for answer in found]
        remaining = tuple(name for name in remaining if name not in done)
        if problem and remaining:
            problems.append(f"{remaining[0]}: {problem}")
            remaining = remaining[1:]
    return row | {"problem": "; ".join(problems)}


def missing(task, row):
    """The task's measures, in their order, of which a row lacks a column."""
    wanted = (name for name in MEASURES if name in task.measures)
    return tuple(name for name in wanted if any(row[column] == "" for column in MEASURES[name]))


def failures(tasks, rows):
    """The models of whose rows something is missing, in words, each with the reason."""
    failed = [row for task, row in zip(tasks, rows, strict=True) if missing(task, row)]
    return "; ".join(f"{row['model']} ({row['problem']})" for row in failed)


def settings_of(task, where):
    """The columns `SETTINGS` of a task's row."""
    return {
        "model": task.model,
        "image_size": "x".join(map(str, task.image_size)),
        "batch_size": task.batch_size,
        "precision": task.precision,
        "repeats": task.repeats,
        **where,
    }


def key_of(row):
    """What tells rows apart, the same for a row that was read from a file."""
    return tuple(str(row[column]) for column in SETTINGS)


def _in_fresh_process(task):
    """What a process of its own prints for a task, and why it ended early, or None."""
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "pit_keras.measure.measuring",
            json.dumps(dataclasses.asdict(task)),
        ],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        errors="replace",
    )
    answers = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    return answers, problem_of(process, answers)


def problem_of(process, answers):
    """Why a process that measures ended early, in one line; None if it did not.

    Args:
        process: A `subprocess.CompletedProcess`.
        answers: What it printed, an object a line.
    """
    if process.returncode == 0:
        return None
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return f"the process was ended by {name}, as when memory is short"
    told = [answer["problem"] for answer in answers if "problem" in answer]
    told = told or process.stderr.strip().splitlines()[-1:] or ["the process said nothing"]
    return told[-1].strip().splitlines()[0]


def read_rows(path):
    """The rows of an earlier benchmark by their keys; none if there is no file.

    Raises:
        ValueError: If the file is something else.
    """
    path = pathlib.Path(path)
    if not path.exists() or not path.stat().st_size:
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        try:
            reader = csv.DictReader(file, strict=True)
            columns, rows = reader.fieldnames, list(reader)
        except (csv.Error, UnicodeDecodeError):
            columns, rows = None, []
    if columns != list(COLUMNS) or any(None in row or None in row.values() for row in rows):
        raise ValueError(
            f"{path} is not a table of `pit-keras benchmark`; give the name of one, or of a new "
            "file."
        )
    return {key_of(row): row for row in rows}


def write_rows(rows, path):
    """Writes rows, {column: value}, so that a reader sees the old table or the new."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.incomplete")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def markdown(rows, measures):
    """The rows of one run as a Markdown table, below a line that says how they were measured."""
    first = rows[0]
    where = f"`{first['precision']}`, batches of {first['batch_size']} (latency: 1), medians of "
    where += f"{first['repeats']}, {first['backend']} on {first['device']}, {first['threads']} "
    where += f"threads ({first['versions']}). Ratios: speed over that of `{REFERENCE}`."
    columns = [column for name in MEASURES if name in measures for column in MEASURES[name]]
    shown = ["model", "image_size", *columns]
    if any(row["problem"] for row in rows):
        shown.append("problem")
    header = [_HEADINGS.get(column, column.replace("_", " ")) for column in shown]
    cells = [[_cell(column, row[column]) for column in shown] for row in rows]
    return f"{where}\n\n{markdown_table(header, cells, text_columns=(0, 1, len(columns) + 2))}"


def _cell(column, value):
    """A value as people read it: thousands apart, operations in 10^9."""
    if value == "":
        return ""
    if column == "macs":
        return f"{int(value) / 1e9:.2f}"
    return f"{int(value):,}" if column == "parameters" else str(value).replace("|", "/")
