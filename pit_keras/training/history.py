"""The rows of a run's `history.csv`, one for each epoch.

They hold no measured times, so that a run has the same history byte for byte however often it was
interrupted; times are in `log.jsonl`.
"""

import csv
import io
import os

from pit_keras.training.run_folder import write_atomically


def history_rows(path):
    """The lines of `history.csv` that are whole rows, its header left out."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [line for line in file if line.partition(",")[0].isdigit() and line.endswith("\n")]


def keep_history_rows(path, epochs):
    """Removes the rows of epochs that no checkpoint holds and that will be run again.

    Returns:
        How many rows stay.
    """
    if not path.exists():
        return 0
    kept = [row for row in history_rows(path) if int(row.partition(",")[0]) < epochs]
    with path.open(newline="") as file:
        header = file.readline()
    write_atomically(path, "".join([header, *kept]) if kept else "")
    return len(kept)


def append_history_row(path, row):
    """Adds a row, {column: value}, and the header if it is the first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, row, lineterminator="\n")
    is_first = not path.exists() or not path.stat().st_size
    if is_first:
        writer.writeheader()
    writer.writerow(row)
    with path.open("a", newline="") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())
