"""The run folders below a folder, each read as one row of a table: what `pit-keras runs` shows.

Nothing is written, and a running training is not disturbed. A file that cannot be read is named in
the run's `problem`, so that one damaged run does not hide the others.
"""

import csv
import dataclasses
import difflib
import json
import math
import os
import pathlib
import statistics
import warnings

import filelock

from pit_keras.config.fields import Config, leaves
from pit_keras.config.model_names import DETECTOR_PREFIX
from pit_keras.config.recipes import RECIPES, recipe
from pit_keras.errors import one_line
from pit_keras.runs.run_folder import RunFolder, counted_from_one, csv_text

# Columns of a table of runs, in their order; `Run` has an attribute for each.
COLUMNS = (
    "run", "state", "model", "recipe", "dataset", "epochs", "top1", "AP", "val_loss",
    "loss", "images_per_second",
)  # fmt: skip
HIGHER_IS_BETTER = ("epochs", "top1", "AP", "images_per_second")
# Settings that are columns of every table, by the column's name.
SHOWN = {
    "model": "model.name",
    "recipe": "recipe",
    "dataset": "data.dataset",
    "total_epochs": "training.epochs",
}
# What is most often changed comes first where there is no room for all.
SECTIONS = ("optimizer", "training", "model", "data", "distillation", "detection")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder, as far as it can be read; None stands for what is not known."""

    run: str  # the folder's path, relative to the one that was searched
    state: str  # finished, running (a process trains in it now), unfinished, or damaged
    model: str | None
    recipe: str | None
    dataset: str | None
    epochs: int  # finished ones
    total_epochs: int | None
    # A finished run has the metrics of `model.keras`, another one its best so far.
    top1: float | None  # of a classifier, 0 to 1
    AP: float | None  # of a detector, 0 to 1
    val_loss: float | None  # of a classifier, with that top1
    loss: float | None  # of training, in the last epoch
    images_per_second: float | None  # of training, the median over the epochs
    settings: dict  # {dotted path: value} of `config.json`
    history: list  # the rows of `history.csv`, {column: number}
    problem: str  # what is wrong, in sentences; "" if nothing is

    @property
    def figure(self):
        """The metric that compares its epochs: "AP" of a detector, else "top1"."""
        return "AP" if str(self.model).startswith(DETECTOR_PREFIX) else "top1"

    def value(self, column):
        """The value of one of `COLUMNS`, or of the setting at a dotted path."""
        return getattr(self, column) if column in COLUMNS else self.settings.get(column)


def read_runs(folders):
    """All runs in and below folders, in the order of their names.

    Runs are named by their path below what the folders have in common.
    """
    base, runs = os.path.commonpath([os.path.abspath(folder) for folder in folders]), []
    for path in find_run_folders(folders):
        name = os.path.relpath(path, base)
        runs.append(read_run(path, os.path.basename(base) if name == os.curdir else name))
    return sorted(runs, key=lambda run: run.run)


def find_run_folders(folders):
    """Run folders among some folders and below them, each once.

    Hidden folders and what is below a run are left out. A link to a run is followed, a link to
    another folder is not.
    """
    paths, links = [], []
    for folder in folders:
        if not os.path.isdir(folder):
            raise NotADirectoryError(f"There is no folder {folder}; give folders of runs.")
        for path, below, _ in os.walk(folder, onerror=_warn):
            if is_run_folder(path):
                paths.append(path)
                below.clear()
            below[:] = sorted(name for name in below if not name.startswith("."))
            children = (os.path.join(path, name) for name in below)
            links += [child for child in children if os.path.islink(child)]
    found = {}
    for path in (*paths, *filter(is_run_folder, links)):
        found.setdefault(os.path.realpath(path), pathlib.Path(path))
    return list(found.values())


def _warn(error):
    warnings.warn(f"{error.filename} is left out: {error.strerror}.", stacklevel=2)


def is_run_folder(folder):
    """Whether a folder holds a `config.json` of ours, or one that cannot be read."""
    file = RunFolder(folder).config
    if not os.path.isfile(file):  # False also where permissions hide the file
        return False
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return True
    # Other programs write a config.json too, which has hardly any of these parts.
    parts = [field.name for field in dataclasses.fields(Config)]
    return isinstance(content, dict) and 2 * sum(part in content for part in parts) > len(parts)


def read_run(path, name):
    """Reads a run folder as a `Run` of a name."""
    folder, problems = RunFolder(path), []

    def attempt(read, file, default):
        try:
            return read(file)
        except (OSError, ValueError) as error:
            problems.append(f"{file.name} cannot be read: {_reason(error)}.")
            return default

    settings = attempt(lambda file: dict(leaves(json.loads(file.read_text()))), folder.config, {})
    history = attempt(read_history, folder.history, []) if folder.history.exists() else []
    results = attempt(read_results, folder.results, {}) if folder.finished else {}
    rates = attempt(read_rates, folder.log, []) if folder.log.exists() else []
    rates = rates or [row["images_per_second"] for row in history if "images_per_second" in row]
    if problems:
        state = "damaged"
    elif folder.finished:
        state = "finished"
    else:
        state = "running" if is_locked(folder.lock) else "unfinished"
    if settings:
        try:  # a run of another version of this package is compared all the same
            folder.read_config()
        except ValueError as error:
            reason = _reason(error.__cause__ or error)
            problems.append(f"config.json is not of this version: {reason}.")
    return Run(
        run=name,
        state=state,
        **{column: settings.get(path) for column, path in SHOWN.items()},
        epochs=max((row["epoch"] for row in history), default=0),
        top1=results.get("top1") if results else _best(history, "top1"),
        AP=results.get("AP") if results else _best(history, "AP"),
        val_loss=results.get("loss") if results else _loss_of_best(history),
        loss=history[-1].get("loss") if history else None,
        images_per_second=statistics.median(rates) if rates else None,
        settings=settings,
        history=history,
        problem=" ".join(problems),
    )


def _reason(error):
    """An error's message without the file's name and the full stop."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
    return reason.removesuffix(".")


def is_locked(path):
    """Whether a process holds the lock on a file, which is neither made nor changed."""
    if not path.exists():
        return False
    try:
        with filelock.FileLock(path).acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:  # a file without permission to write; its holder is not known
        return False


def read_history(path):
    """The rows of a `history.csv`, {column: number}, without a last one that is cut short."""
    return counted_from_one(_rows(path))


def kept_epoch(folder):
    """The epoch whose weights a finished run's `model.keras` has, counted from 1; None if unknown.

    Earlier versions counted it as their history, from 0.
    """
    try:
        rows, results = _rows(folder.history), read_results(folder.results)
        return results["best_epoch"] + int(rows[0]["epoch"] == 0)
    except (OSError, ValueError, LookupError):
        return None


def _rows(path):
    lines = pathlib.Path(path).read_text().splitlines(keepends=True)
    rows = []
    for number, row in enumerate(csv.DictReader(line for line in lines if line[-1] == "\n"), 1):
        try:
            values = {name: float(value) for name, value in row.items() if value != ""}
            rows.append({**values, "epoch": int(row["epoch"])})
        except (ValueError, TypeError, KeyError):  # too few values, too many, no epoch
            raise ValueError(f"row {number} does not hold numbers for the columns") from None
    return rows


def read_results(path):
    results = json.loads(path.read_text())
    if not isinstance(results, dict) or not {"top1", "AP"} & results.keys():
        raise ValueError("it holds no top1 or AP")
    return results


def read_rates(path):
    """Images a second of the epochs in a `log.jsonl`; of the last step if no epoch is finished.

    A line that is cut short, by a process that was killed, is passed over.
    """
    rates = {"epoch": [], "step": []}
    with path.open(errors="replace") as file:
        for line in file:
            if '"images_per_second"' not in line:  # logs may be long: the rest is not parsed
                continue
            try:
                event = json.loads(line)
                rates.get(event["event"], []).append(float(event["images_per_second"]))
            except (ValueError, TypeError, KeyError):
                continue
    return rates["epoch"] or rates["step"][-1:]


def _best(history, figure):
    values = (validation(row, figure) for row in history)
    return max((value for value in values if not math.isnan(value)), default=None)


def _loss_of_best(history):
    """The validation loss where top-1 is best, the lowest of equals; None without any."""
    pairs = [
        (row[f"{prefix}top1"], -row[f"{prefix}loss"])
        for row in history
        for prefix in ("val_", "val_averaged_")
        if {f"{prefix}top1", f"{prefix}loss"} <= row.keys()
    ]
    return -max(pairs)[1] if pairs else None


def validation(row, figure):
    """An epoch's validation top1 or AP, the better of raw and averaged weights; NaN without one."""
    both = [row.get(f"{prefix}{figure}", math.nan) for prefix in ("val_", "val_averaged_")]
    return max((value for value in both if not math.isnan(value)), default=math.nan)


def sorted_runs(runs, column="top1"):
    """Runs by a column or a setting's path, the best first; those without a value come last."""
    columns = dict.fromkeys((*COLUMNS, *(path for run in runs for path in run.settings)))
    if column not in columns:
        near = difflib.get_close_matches(column, columns)
        hint = f"columns are {', '.join(COLUMNS)}, and the settings by their dotted paths."
        hint = f"did you mean {' or '.join(near)}?" if near else hint
        raise ValueError(f"There is no column {column!r} to sort by; {hint}")
    sign = -1 if column in HIGHER_IS_BETTER else 1

    def place(run):
        value = run.value(column)
        if value is None or value != value:
            return (2,)
        return (0, sign * value) if isinstance(value, float | int) else (1, str(value))

    return sorted(runs, key=place)


def differing_settings(runs):
    """Dotted paths of the settings in which runs differ, without those in `COLUMNS`.

    A setting that a run's configuration lacks is not compared.
    """
    different = []
    for path in dict.fromkeys(path for run in runs for path in run.settings):
        values = [run.settings[path] for run in runs if path in run.settings]
        if path not in SHOWN.values() and any(value != values[0] for value in values):
            different.append(path)
    places = {section: place for place, section in enumerate(SECTIONS)}
    return sorted(different, key=lambda path: places.get(path.partition(".")[0], len(places)))


def follows_from_recipe(path, runs):
    """Whether a setting has in all runs the value of their recipe for their model."""
    return all(
        run.recipe in RECIPES
        and dict(leaves(dataclasses.asdict(recipe(run.recipe, str(run.model))))).get(path)
        == run.settings[path]
        for run in runs
        if path in run.settings
    )


def write_table(runs, path):
    """Writes runs as CSV: `COLUMNS`, the planned epochs, all differing settings, the problem."""
    columns = [*COLUMNS, "total_epochs", *differing_settings(runs), "problem"]
    text = csv_text([{**run.settings, **vars(run)} for run in runs], columns)
    pathlib.Path(path).write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
