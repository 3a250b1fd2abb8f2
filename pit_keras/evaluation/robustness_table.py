"""The table of robustness results: a CSV file with a row for each model, and the paper's rows."""

import csv
import importlib.resources
import pathlib

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
        ValueError: If the file is another's.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [_parsed(row) for row in reader]
            is_ours = set(SETTINGS) <= set(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error, ValueError):
        is_ours = False
    if not is_ours:
        raise ValueError(
            f"{path} is not a table of robustness results, a CSV with the columns "
            f"{', '.join(SETTINGS)}; give another file."
        )
    return rows


def put_row(path, row):
    """Writes a row into a table, in the place of the one of the same model if there is one.

    Args:
        path: The CSV file; it is made if need be.
        row: `SETTINGS`, accuracies as fractions by column, and `not_run`, the suites that were
            asked for and could not run.

    Returns:
        All rows of the table.
    """
    rows = read_rows(path)
    places = [place for place, other in enumerate(rows) if other["model"] == row["model"]]
    if places:
        rows[places[0]] = row
    else:
        rows.append(row)
    others = dict.fromkeys(name for row in rows for name in row)
    columns = list(dict.fromkeys((*SETTINGS, *COLUMNS, *others)))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _parsed(row):
    """A row with its numbers as numbers, and without empty cells.

    Raises:
        ValueError: If an accuracy is no number, or there are more cells than columns.
    """
    if None in row:
        raise ValueError("A row has more cells than there are columns.")
    texts = (*SETTINGS[:-1], "training", "source", "not_run")
    return {name: value if name in texts else float(value) for name, value in row.items() if value}
