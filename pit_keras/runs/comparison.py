"""The run folders below a folder, each read as one row of a table: what `pit-keras runs` shows.

Nothing is written, and a run that goes on is not disturbed. What cannot be read of a folder is left
out and told in a sentence, so that one damaged run does not hide the others.
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

from pit_keras.config.fields import DETECTOR_PREFIX, Config, field_paths, get_field
from pit_keras.config.recipes import RECIPES, recipe
from pit_keras.runs.run_folder import RunFolder

# A run's columns of these names, in the order of the table; `Run` has an attribute for each.
COLUMNS = (
    "run", "state", "model", "recipe", "dataset", "epochs", "top1", "AP", "loss",
    "images_per_second",
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
    """A run folder, as far as it can be read; None stands for what is not known.

    Attributes:
        run: The folder's path, relative to the one that was searched.
        state: "finished", "running" (a process trains in it now), "unfinished", or "damaged" if one
            of its files cannot be read.
        model: Name of the model.
        recipe: Name of the recipe.
        dataset: Name of the data set.
        epochs: How many are done.
        total_epochs: How many are to be done.
        top1: Of a classifier the share of the validation images, 0 to 1: of `model.keras` if the
            run is finished, else the best so far, of the raw or the averaged weights.
        AP: Of a detector COCO's average precision, 0 to 1, likewise.
        loss: Training loss of the last epoch.
        images_per_second: Of training, the median over the epochs.
        settings: {dotted path: value} of `config.json`.
        history: The rows of `history.csv`, each {column: number}.
        problem: What is wrong, in sentences; "" if nothing is.
    """

    run: str
    state: str
    model: str | None
    recipe: str | None
    dataset: str | None
    epochs: int
    total_epochs: int | None
    top1: float | None
    AP: float | None
    loss: float | None
    images_per_second: float | None
    settings: dict
    history: list
    problem: str

    @property
    def figure(self):
        """By what its epochs are compared: "AP" of a detector, else "top1"."""
        return "AP" if str(self.model).startswith(DETECTOR_PREFIX) else "top1"

    def value(self, column):
        """What stands in one of `COLUMNS`, or the setting at a dotted path; None if not known."""
        return getattr(self, column) if column in COLUMNS else self.settings.get(column)


def read_runs(folders):
    """Reads all runs in and below folders, see `find_run_folders`.

    Args:
        folders: Paths. Runs are named by their path below what these have in common.

    Returns:
        A list of `Run`, in the order of their names.

    Raises:
        OSError: If one of the folders is not there or is a file.
    """
    base = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    found = [read_run(path, _name(path, base)) for path in find_run_folders(folders)]
    return sorted(found, key=lambda run: run.run)


def _name(path, base):
    name = os.path.relpath(path, base)
    return os.path.basename(os.path.abspath(path)) if name == os.curdir else name


def find_run_folders(folders):
    """Folders that hold a run's `config.json`, among some folders and all that are below them.

    Hidden folders and what is below a run are left out. A link to a run is followed, a link to
    another folder is not; no run is given twice.

    Raises:
        OSError: If one of the folders is not there or is a file.
    """
    pending, links, found = [pathlib.Path(folder) for folder in folders], [], {}
    for folder in pending:
        if not folder.is_dir():
            raise NotADirectoryError(f"There is no folder {folder}; give folders of runs.")
    while pending:
        folder = pending.pop()
        if is_run_folder(folder):
            found.setdefault(os.path.realpath(folder), folder)
            continue
        for child in _folders_in(folder):
            (links if child.is_symlink() else pending).append(child)
    for link in filter(is_run_folder, links):
        found.setdefault(os.path.realpath(link), link)
    return list(found.values())


def _folders_in(folder):
    try:
        children = sorted(child for child in folder.iterdir() if os.path.isdir(child))
    except OSError as error:
        warnings.warn(f"{folder} is left out: {_reason(error)}.", stacklevel=2)
        return []
    return [child for child in children if not child.name.startswith(".")]


def is_run_folder(folder):
    """Whether a folder holds a `config.json` of ours, or one that cannot be read."""
    file = RunFolder(folder).config
    if not os.path.isfile(file):  # also where that may not be known
        return False
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return True
    # Other programs write a config.json too, which has hardly any of these parts.
    parts = [field.name for field in dataclasses.fields(Config)]
    return isinstance(content, dict) and 2 * sum(part in content for part in parts) > len(parts)


def read_run(path, name):
    """Reads a run folder.

    Args:
        path: The folder.
        name: What the run is to be called.

    Returns:
        A `Run`; what cannot be read is told in its `problem`.
    """
    folder, problems = RunFolder(path), []

    def attempt(read, file, default):
        try:
            return read(file)
        except (OSError, ValueError) as error:
            problems.append(f"{file.name} cannot be read: {_reason(error)}.")
            return default

    settings = attempt(read_settings, folder.config, {})
    history = attempt(read_history, folder.history, []) if folder.history.exists() else []
    results = attempt(read_results, folder.results, None) if folder.finished else None
    rates = attempt(read_rates, folder.log, []) if folder.log.exists() else []
    # A run of another version of this package is compared all the same.
    state = "damaged" if problems else _state(folder)
    if settings:
        problems += _misfits(folder)
    return Run(
        run=name,
        state=state,
        **{column: settings.get(path) for column, path in SHOWN.items()},
        epochs=max((row["epoch"] for row in history), default=-1) + 1,
        top1=results.get("top1") if results else _best(history, "top1"),
        AP=results.get("AP") if results else _best(history, "AP"),
        loss=history[-1].get("loss") if history else None,
        images_per_second=_median(rates or [row.get("images_per_second") for row in history]),
        settings=settings,
        history=history,
        problem=" ".join(problems),
    )


def _reason(error):
    """What an error says, in one line and without the file's name or a full stop."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split()).removesuffix(".")


def _state(folder):
    if folder.finished:
        return "finished"
    return "running" if is_locked(folder.lock) else "unfinished"


def is_locked(path):
    """Whether a process holds the lock on a file, which is neither made nor changed."""
    if not path.exists():
        return False
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:  # a file that may not be written to; who holds it cannot be told
        return False
    lock.release()
    return False


def _misfits(folder):
    """What keeps this version of the package from using the configuration, in sentences."""
    try:
        folder.read_config()
    except ValueError as error:
        return [f"config.json is not of this version: {_reason(error.__cause__ or error)}."]
    return []


def read_settings(path):
    """The values of a `config.json`, {dotted path: value}, lists as tuples.

    Raises:
        ValueError: If it is not an object of JSON.
    """
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError("it is not an object of JSON")
    return dict(_leaves(content))


def _leaves(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", tuple(value) if isinstance(value, list) else value


def read_history(path):
    """The rows of a `history.csv`, each {column: number}, without a last one that is cut short.

    Raises:
        ValueError: If a row does not fit the header, or holds something else than numbers.
    """
    lines = pathlib.Path(path).read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    rows = []
    for number, row in enumerate(csv.DictReader(whole), 1):
        if None in row or None in row.values() or "epoch" not in row:
            raise ValueError(f"row {number} does not fit the header")
        try:
            values = {name: float(value) for name, value in row.items() if value != ""}
            rows.append({**values, "epoch": int(row["epoch"])})
        except ValueError:
            raise ValueError(f"row {number} holds something else than numbers") from None
    return rows


def read_results(path):
    """What a `results.json` holds, among it the number `top1` or, of a detector, `AP`.

    Raises:
        ValueError: If it does not.
    """
    results = json.loads(path.read_text())
    if not isinstance(results, dict) or not (
        isinstance(results.get("top1"), float | int) or "AP" in results
    ):
        raise ValueError("it holds no top1 or AP")
    return results


def read_rates(path):
    """Images a second of the epochs in a `log.jsonl`; of the last steps if no epoch is done.

    Lines that are no JSON are passed over: a process that is killed leaves half of one.
    """
    rates = {"epoch": [], "step": []}
    with path.open(errors="replace") as file:
        for line in file:
            # Logs may be long: what has no rate need not be parsed.
            event = _event(line) if '"images_per_second"' in line else {}
            rate = event.get("images_per_second")
            if isinstance(rate, float | int):
                rates.get(str(event.get("event")), []).append(rate)
    return rates["epoch"] or rates["step"][-1:]


def _event(line):
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _median(numbers):
    known = [number for number in numbers if number is not None]
    return statistics.median(known) if known else None


def _best(history, figure):
    known = [value for value in (validation(row, figure) for row in history) if value == value]
    return max(known, default=None)


def validation(row, figure):
    """A validation's figure in an epoch, top1 or AP, the better of the raw and the averaged
    weights'; NaN if there is none.
    """
    both = [row.get(f"{prefix}{figure}", math.nan) for prefix in ("val_", "val_averaged_")]
    return max((value for value in both if not math.isnan(value)), default=math.nan)


def sorted_runs(runs, column="top1"):
    """Runs by a column, the best first where higher is better; those without a value come last.

    Args:
        runs: A list of `Run`.
        column: One of `COLUMNS`, or the dotted path of a setting.

    Raises:
        ValueError: If there is no such column; it names the near ones.
    """
    paths = dict.fromkeys(path for run in runs for path in run.settings)
    if column not in (*COLUMNS, *paths):
        near = difflib.get_close_matches(column, (*COLUMNS, *paths))
        columns = f"columns are {', '.join(COLUMNS)}, and the settings by their dotted paths."
        hint = f"did you mean {' or '.join(near)}?" if near else columns
        raise ValueError(f"There is no column {column!r} to sort by; {hint}")
    placed = [run for run in runs if _order(run.value(column)) is not None]
    others = [run for run in runs if _order(run.value(column)) is None]
    placed.sort(key=lambda run: _order(run.value(column)), reverse=column in HIGHER_IS_BETTER)
    return placed + others


def _order(value):
    """Numbers before text; None for what has no place."""
    if isinstance(value, float | int):
        return None if math.isnan(value) else (0, value)
    return None if value is None else (1, str(value))


def differing_settings(runs):
    """Dotted paths of the settings in which runs differ, without those in `COLUMNS`.

    A setting that a run's configuration lacks is not compared.
    """
    sections = {section: place for place, section in enumerate(SECTIONS)}
    paths = dict.fromkeys(path for run in runs for path in run.settings)
    different = []
    for path in paths:
        values = [run.settings[path] for run in runs if path in run.settings]
        if path not in SHOWN.values() and any(value != values[0] for value in values):
            different.append(path)
    return sorted(different, key=lambda path: sections.get(path.partition(".")[0], len(sections)))


def follows_from_recipe(path, runs):
    """Whether a setting has in all runs the value that their recipe has for their model."""
    return all(
        _recipe_settings(run).get(path) == run.settings[path]
        for run in runs
        if path in run.settings
    )


def _recipe_settings(run):
    if str(run.recipe) not in RECIPES:
        return {}
    config = recipe(run.recipe, str(run.model))
    return {path: get_field(config, path) for path in field_paths(config)}


def write_table(runs, path):
    """Writes runs as CSV: `COLUMNS`, the length of the run, all differing settings, the problem.

    Args:
        runs: A list of `Run`.
        path: The file to write.
    """
    columns = [*COLUMNS, "total_epochs", *differing_settings(runs), "problem"]
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**run.settings, **vars(run)} for run in runs)
