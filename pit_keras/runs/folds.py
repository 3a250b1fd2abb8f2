"""The results of a cross-validation: one run for each fold of a folder, and their mean."""

import json
import statistics

from pit_keras.runs.run_folder import write_atomically


def write_folds(output_dir, results):
    """Writes `folds.json` from the results of all folds, in their order; returns its content.

    It has the `mean` and the sample standard `deviation` of `top1` and `loss` over the folds.
    """
    columns = {name: [each[name] for each in results] for name in ("top1", "loss")}
    content = {
        "mean": {name: statistics.fmean(values) for name, values in columns.items()},
        "deviation": {name: statistics.stdev(values) for name, values in columns.items()},
        "images": sum(each["images"] for each in results),
        "folds": results,
    }
    write_atomically(output_dir / "folds.json", json.dumps(content, indent=2) + "\n")
    return content
