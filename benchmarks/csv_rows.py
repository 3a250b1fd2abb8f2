"""How every benchmark here writes its results."""

import csv


def write_rows(rows, path):
    """Writes dictionaries of the same keys as a CSV; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"Written to {path}", flush=True)
