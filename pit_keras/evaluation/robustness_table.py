"""The table of robustness results: a CSV file with a row for each model, and the paper's rows."""

import csv
import importlib.resources
import math
import pathlib

from pit_keras.runs.run_folder import csv_text, write_atomically

# What tells a row's measurement from another's, and the columns of the paper's table 5.
SETTINGS = ("model", "architecture", "dataset", "split", "eval_crop")
COLUMNS = ("standard", "occlusion", "imagenet_a", "backgrounds", "fgsm")
_TEXTS = (*SETTINGS[:-1], "training", "source", "not_run")


def paper_rows():
    """The rows of the paper's table 5: `architecture`, `training`, `COLUMNS` and `source`."""
    file = importlib.resources.files("pit_keras.evaluation").joinpath("robustness_paper.csv")
    return [_parsed(row) for row in csv.DictReader(file.read_text().splitlines())]


def read_rows(path):
    """The rows of a table that `put_row` wrote; none if there is no such file."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    # Names of files may hold bytes that are not text.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        try:
            if set(SETTINGS) <= set(reader.fieldnames or ()):
                return [_parsed(row) for row in reader]
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f"Line {reader.line_num} of {path}: {error}; correct it or give another file."
            ) from error
    raise ValueError(f"{path} is not a table of robustness results; give another file.")


def put_row(path, row):
    """Writes a row into a table, in the place of the row of the same model; returns all rows.

    If both were measured in the same way, the old row's other columns stay. A row has `SETTINGS`,
    accuracies as fractions by column, and `not_run`, the suites that were asked for and could not
    run.
    """
    rows = read_rows(path)
    places = [place for place, other in enumerate(rows) if other["model"] == row["model"]]
    if places:
        rows[places[0]] = _combined(rows[places[0]], row)
    else:
        rows.append(row)
    columns = dict.fromkeys((*SETTINGS, *COLUMNS, *(name for row in rows for name in row)))
    write_atomically(pathlib.Path(path), csv_text(rows, list(columns)))
    return rows


def measured_columns(rows):
    """The accuracies that any row has, the paper's columns each followed by its variations."""
    names = dict.fromkeys(name for row in rows for name in row)

    def place(name):
        suite = next(suite for suite in COLUMNS if name.startswith(suite))
        return COLUMNS.index(suite), name not in COLUMNS

    return sorted((name for name in names if name not in (*SETTINGS, "not_run")), key=place)


def _combined(old, new):
    """A new row with an old one's other columns, if both were measured in the same way.

    A setting that one of them lacks makes no difference: its suites do not depend on it.
    """
    if any(old.get(name, new.get(name)) != new.get(name, old.get(name)) for name in SETTINGS):
        return new
    row = old | new
    row.pop("not_run", None)
    asked = f"{old.get('not_run', '')} {new.get('not_run', '')}".split()
    lacking = [
        suite
        for suite in COLUMNS
        if suite in asked and not any(f"{column}_".startswith(f"{suite}_") for column in row)
    ]
    return row | ({"not_run": " ".join(lacking)} if lacking else {})


def _parsed(row):
    """A row with its numbers as numbers, and without empty cells."""
    if None in row or None in row.values():
        raise ValueError(f"it has {'more' if None in row else 'fewer'} cells than the columns")
    if row.get("model") == "":
        raise ValueError("its model is empty")
    parsed = {name: value for name, value in row.items() if value}
    for name in [name for name in parsed if name not in _TEXTS]:
        try:
            parsed[name] = float(row[name])
        except ValueError:
            parsed[name] = math.nan
        if not math.isfinite(parsed[name]):
            raise ValueError(f"its {name} is {row[name]!r} instead of a number")
    return parsed
