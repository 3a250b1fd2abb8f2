"""A run's `history.csv`, a row for each epoch.

It holds no measured times, so that a run has the same history byte for byte however often it was
interrupted; times are in `log.jsonl`. The rows are part of a run's `Progress`.
"""

from pit_keras.runs.run_folder import csv_text, write_atomically


def write_history(path, rows):
    """Writes rows, {column: value} with the same columns each; without any the file is removed."""
    if rows:
        write_atomically(path, csv_text(rows))
    else:
        path.unlink(missing_ok=True)
