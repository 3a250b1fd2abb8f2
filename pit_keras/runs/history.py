"""A run's `history.csv`, a row for each epoch.

It holds no measured times, so that a run has the same history byte for byte however often it was
interrupted; times are in `log.jsonl`. The rows are part of a run's `Progress`; the file is written
from them.
"""

import csv
import io

from pit_keras.runs.run_folder import write_atomically


def write_history(path, rows):
    """Writes rows, {column: value} with the same columns each; without any the file is removed.

    Raises:
        OSError: If they cannot be written; what was there before stays.
    """
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
