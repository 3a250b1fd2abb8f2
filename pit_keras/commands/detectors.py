"""`pit-keras predict` and `evaluate` with a detector."""

import itertools
import json
import pathlib
import sys

from rich.console import Console
from rich.table import Table

from pit_keras.commands.arguments import open_data_set, progress, refuse
from pit_keras.runs.found_objects import THRESHOLD

BATCH_SIZE = 8

# Rows of COCO's metrics, and the headings of their columns.
_ROWS = (
    ("average precision", ("IoU 0.5 to 0.95", "IoU 0.5", "IoU 0.75", "small", "medium", "large")),
    ("average recall", ("1 an image", "10 an image", "100 an image", "small", "medium", "large")),
)


def predict(options, detector, paths):
    """Prints the objects in image files, and draws them if asked."""
    if options.output is not None:
        from pit_keras.plots.pictures import MOST_DETECTED, check_picture, draw_detections

        check_picture(options.output, len(paths), MOST_DETECTED)
    from pit_keras.runs.trained_detector import detect

    threshold = THRESHOLD if options.threshold is None else options.threshold
    found = detect(detector, progress(paths, "Reading"), threshold)
    for path, objects in zip(paths, found, strict=True):
        print(f"{path}: {len(objects)} object{'' if len(objects) == 1 else 's'}")
        for each in objects:
            left, top, right, bottom = each.box
            print(
                f"  {each.name} {each.score:.1%}: left {left:.0f}, top {top:.0f}, right "
                f"{right:.0f}, bottom {bottom:.0f}"
            )
    if options.output is not None:
        draw_detections(paths, found, options.output)
        print(f"Drawn in {options.output}", file=sys.stderr)


def evaluate(options, detector):
    """Prints COCO's metrics over a split; writes them and the detections if asked."""
    refuse(options, ("crop", "report"), "a detector")
    if options.split == "all":
        raise ValueError("--split=all has no meaning for a detector: ids may occur in both parts.")
    from pit_keras.evaluation.detection import COCO_METRICS, evaluate_detection_source

    results, detections = evaluate_detection_source(
        detector,
        open_data_set(detector, options.dataset, options.data_dir),
        options.split,
        batch_size=options.batch_size or BATCH_SIZE,
        progress=sys.stdout.isatty(),
    )
    console = Console(stderr=True)
    metrics = iter(results[name] for name in COCO_METRICS)
    for name, columns in _ROWS:
        table = Table(name, box=None, pad_edge=False, collapse_padding=True)
        for column in columns:
            table.add_column(column, justify="right")
        values = itertools.islice(metrics, len(columns))
        table.add_row("", *("none" if value is None else f"{value:.3f}" for value in values))
        console.print(table)
    text = json.dumps(results, indent=2)
    print(text)
    if options.output is not None:
        pathlib.Path(options.output).write_text(text + "\n")
    if options.detections is not None:
        pathlib.Path(options.detections).write_text(json.dumps(detections) + "\n")
