"""What models cost, as the rows of a table: counted, and measured on this machine.

Each model is measured in a process of its own (`measuring.py`), so its memory is its own, and a
model that does not fit, or crashes, becomes a row with a problem while the others go on.
"""

import csv
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

from pit_keras.measure.measuring import MEASURES, REFERENCE, Task
from pit_keras.models import variant_of
from pit_keras.models.detr import Detr
from pit_keras.runs.run_folder import csv_text, write_atomically

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
    """The `Task` of a model, by default with images of the size that it was published with."""
    if isinstance(variant_of(name), Detr) and {"training", "memory"} & set(measures):
        raise ValueError(
            f"{name} is a detector, whose training step benchmarks/detectors.py measures; give "
            "--measure=cost,throughput,latency."
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


def machine(precision):
    """Backend, device, threads and versions, as a process that measures finds them."""
    answers, problem = _in_fresh_process(Task(REFERENCE, (), (), (), 1, precision, 1))
    if problem:
        raise ValueError(f"A process that measures cannot start: {problem}.")
    return answers[0]["machine"]


def measure(task, where, row=None):
    """Measures one model; after a measure that fails, the others go on in another process.

    `where` is what `machine` returns, `row` an earlier row of the same settings. Returns the whole
    row; "" where something was not measured, and under "problem" why not.
    """
    row = {**dict.fromkeys(COLUMNS, ""), **settings_of(task, where), **(row or {}), "problem": ""}
    remaining, problems = missing(task, row), []
    while remaining:
        answers, problem = _in_fresh_process(dataclasses.replace(task, measures=remaining))
        found = {each["measure"]: each["columns"] for each in answers if "measure" in each}
        for columns in found.values():
            row |= columns
        remaining = tuple(name for name in remaining if name not in found)
        if problem and remaining:
            problems.append(f"{remaining[0]}: {problem}")
            remaining = remaining[1:]
    return row | {"problem": "; ".join(problems)}


def missing(task, row):
    """The task's measures, in their order, with an empty column in a row."""
    wanted = (name for name in MEASURES if name in task.measures)
    return tuple(name for name in wanted if any(row[column] == "" for column in MEASURES[name]))


def failures(tasks, rows):
    """The models with incomplete rows, and the reasons, in words."""
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
    """The `SETTINGS` of a row, the same for a row that was read from a file."""
    return tuple(str(row[column]) for column in SETTINGS)


def _in_fresh_process(task):
    """What a process of its own prints for a task, and why it ended early, or None."""
    arguments = ["pit_keras.measure.measuring", json.dumps(dataclasses.asdict(task))]
    process = subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        errors="replace",
    )
    answers = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    return answers, problem_of(process, answers)


def problem_of(process, answers):
    """Why a process that measures ended early, in one line; None if it did not."""
    if process.returncode == 0:
        return None
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return f"the process was ended by {name}, as when memory is short"
    reasons = [answer["problem"] for answer in answers if "problem" in answer]
    reasons = reasons or process.stderr.strip().splitlines()[-1:] or ["the process said nothing"]
    return reasons[-1].strip().splitlines()[0]


def read_rows(path):
    """The rows of an earlier benchmark by their keys; none if there is no file."""
    path = pathlib.Path(path)
    if not path.exists() or not path.stat().st_size:
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames, list(reader)
    except (csv.Error, UnicodeDecodeError):
        columns, rows = None, []
    if columns != list(COLUMNS) or any(None in row or None in row.values() for row in rows):
        raise ValueError(f"{path} is not a table of `pit-keras benchmark`; give another file.")
    return {key_of(row): row for row in rows}


def write_rows(rows, path):
    """Writes rows, {column: value}, so that a reader sees the old table or the new."""
    write_atomically(pathlib.Path(path), csv_text(rows, COLUMNS))


def markdown(rows, measures):
    """The rows of one run as a Markdown table, below a line on how they were measured."""
    where = (
        "`{precision}`, batches of {batch_size} (latency: 1), medians of {repeats}, {backend} on "
        "{device}, {threads} threads ({versions}). Ratios: speed over that of "
    ).format(**rows[0])
    columns = [column for name in MEASURES if name in measures for column in MEASURES[name]]
    shown = ["model", "image_size", *columns]
    if any(row["problem"] for row in rows):
        shown.append("problem")
    header = [_HEADINGS.get(column, column.replace("_", " ")) for column in shown]
    cells = [[_cell(column, row[column]) for column in shown] for row in rows]
    table = markdown_table(header, cells, text_columns=(0, 1, len(columns) + 2))
    return f"{where}`{REFERENCE}`.\n\n{table}"


def _cell(column, value):
    """A value as people read it: thousands apart, operations in 10^9."""
    if value != "" and column == "macs":
        return f"{int(value) / 1e9:.2f}"
    if value != "" and column == "parameters":
        return f"{int(value):,}"
    return str(value).replace("|", "/")


def markdown_table(header, rows, text_columns=(0,)):
    """A table of strings; the columns at the positions `text_columns` are aligned to the left."""
    rule = ["---" if column in text_columns else "--:" for column in range(len(header))]
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(rule)}|"]
    # An empty cell is one space wide, and no line ends in two.
    lines += ["|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in rows]
    return "\n".join(lines) + "\n"
