"""The table of robustness results: a CSV file with a row for each model, and the paper's rows."""

import csv
import importlib.resources
import io
import math
import pathlib

from pit_keras.runs.run_folder import write_atomically

# What tells a row's measurement from another's, and the columns of the paper's table 5.
SETTINGS = ("model", "architecture", "dataset", "split", "eval_crop")
COLUMNS = ("standard", "occlusion", "imagenet_a", "backgrounds", "fgsm")


def paper_rows():
    """The rows of the paper's table 5: `architecture`, `training`, `COLUMNS` and `source`."""
    file = importlib.resources.files("pit_keras.evaluation").joinpath("robustness_paper.csv")
    return [_parsed(row) for row in csv.DictReader(file.read_text().splitlines())]


def read_rows(path):
    """The rows of a table that `put_row` has written; none if there is no such file.

    Raises:
        ValueError: If the file is another's, or a row of it is not whole; the sentence says which.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    try:
        # As it is written: names of files may be no text.
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.DictReader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader]
            is_ours = set(SETTINGS) <= set(reader.fieldnames or ())
    except csv.Error:
        is_ours = False
    if not is_ours:
        raise ValueError(
            f"{path} is not a table of robustness results, a CSV with the columns "
            f"{', '.join(SETTINGS)}; give another file."
        )
    rows = []
    for number, row in lines:
        try:
            rows.append(_parsed(row))
        except ValueError as error:
            raise ValueError(
                f"Line {number} of {path} is no row of robustness results: {error}; mend the line "
                "or give another file."
            ) from error
    return rows


def put_row(path, row):
    """Writes a row into a table, in the place of the one of the same model if there is one.

    If that was measured in the same way, what it holds beside the new figures stays. The table is
    replaced as a whole, so that an interruption leaves the earlier one.

    Args:
        path: The CSV file; it is made if need be.
        row: `SETTINGS`, accuracies as fractions by column, and `not_run`, the suites that were
            asked for and could not run.

    Returns:
        All rows of the table.

    Raises:
        ValueError: See `read_rows`.
        OSError: If it cannot be written; the earlier table stays.
    """
    rows = read_rows(path)
    places = [place for place, other in enumerate(rows) if other["model"] == row["model"]]
    if places:
        rows[places[0]] = _combined(rows[places[0]], row)
    else:
        rows.append(row)
    others = dict.fromkeys(name for row in rows for name in row)
    columns = list(dict.fromkeys((*SETTINGS, *COLUMNS, *others)))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(pathlib.Path(path), text.getvalue())
    return rows


def measured_columns(rows):
    """The accuracies that any row has, the paper's columns each followed by its variations."""
    names = dict.fromkeys(name for row in rows for name in row)
    accuracies = [name for name in names if name not in (*SETTINGS, "not_run")]

    def place(name):
        suite = next(suite for suite in COLUMNS if name.startswith(suite))
        return COLUMNS.index(suite), name not in COLUMNS

    return sorted(accuracies, key=place)


def _combined(old, new):
    """A new row with what an old one holds beside it, if both were measured in the same way.

    A setting that one of them lacks makes no difference: its suites do not depend on it.
    """
    if any(old.get(name, new.get(name)) != new.get(name, old.get(name)) for name in SETTINGS):
        return new
    row = old | new
    asked = f"{old.get('not_run', '')} {new.get('not_run', '')}".split()
    # A suite of which there is a figure, now or from before, lacks nothing.
    lacking = [name for name in COLUMNS if name in asked and not _has_figure(row, name)]
    row.pop("not_run", None)
    return row | ({"not_run": " ".join(lacking)} if lacking else {})


def _has_figure(row, suite):
    return any(column == suite or column.startswith(f"{suite}_") for column in row)


def _parsed(row):
    """A row with its numbers as numbers, and without empty cells.

    Raises:
        ValueError: If it names no model, is longer or shorter than the columns, or an accuracy is
            no number; what is wrong, in the middle of a sentence.
    """
    if None in row or None in row.values():
        raise ValueError(f"it has {'more' if None in row else 'fewer'} cells than the columns")
    if row.get("model") == "":
        raise ValueError("its model is empty")
    texts = (*SETTINGS[:-1], "training", "source", "not_run")
    return {
        name: value if name in texts else _number(name, value)
        for name, value in row.items()
        if value
    }


def _number(name, text):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"its {name} is {text!r} instead of a number")
    return number
