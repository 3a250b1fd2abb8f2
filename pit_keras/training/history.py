"""The rows of a run's `history.csv`, which Keras' `CSVLogger` writes."""

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
