"""`pit-keras evaluate`: measure accuracy on a data set."""

import itertools
import json
import pathlib
import sys

from pit_keras.commands import robustness
from pit_keras.commands.arguments import (
    add_model_arguments,
    check_inputs,
    is_detector,
    load_model,
    open_data_set,
    positive,
    refuse,
    write_output,
)
from pit_keras.errors import check_different_files, check_outputs

BATCH_SIZE, BATCH_SIZE_OF_DETECTOR = 64, 8
# Rows of COCO's metrics, and the headings of their columns.
_ROWS = (
    ("average precision", ("IoU 0.5 to 0.95", "IoU 0.5", "IoU 0.75", "small", "medium", "large")),
    ("average recall", ("1 an image", "10 an image", "100 an image", "small", "medium", "large")),
)


def add_arguments(command):
    add_model_arguments(command)
    argument = command.add_argument
    argument("--dataset", help="digits, folder:PATH, coco:PATH or a TFDS name (default: the run's)")
    argument("--data_dir", help="where TFDS keeps its data sets")
    help_ = "val (default): the validation or the held-out images; train: the others; all: both"
    argument("--split", choices=("train", "val", "all"), default="val", help=help_)
    help_ = f"images at a time (default {BATCH_SIZE}, with a detector {BATCH_SIZE_OF_DETECTOR})"
    argument("--batch_size", type=positive, help=help_)
    argument("--crop", type=float, help="centre crop's share, of a classifier (default: the run's)")
    argument("--output", metavar="JSON", help="also write the results to a file")
    help_ = "of a classifier: also write DIR/index.html with confusions, worst mistakes, curves"
    argument("--report", metavar="DIR", help=help_)
    help_ = "of a detector: also write its detections, as a COCO results file"
    argument("--detections", metavar="JSON", help=help_)
    robustness.add_options(command)


def run(options):
    """Prints top-1, top-5 and loss of a model over a split, or COCO's metrics of a detector."""
    if options.suite is not None:
        refuse(options, ("report", "detections"), "with --suite")
        return robustness.run(options)
    refuse(options, robustness.ONLY_WITH_SUITES, "without --suite")
    _check_files(options)
    trained = load_model(options, may_rename=False)
    if is_detector(trained):
        _evaluate_detector(options, trained)
    else:
        refuse(options, ("detections",), "for a classifier")
        _evaluate_classifier(options, trained)


def _check_files(options):
    files = {"--output": options.output, "--detections": options.detections}
    check_outputs(files)
    check_inputs(options)
    if options.detections is not None:
        # COCO's results are a list, its annotations are not: these must not be overwritten.
        path = pathlib.Path(options.detections)
        if path.is_file() and path.stat().st_size and path.read_bytes().lstrip()[:1] != b"[":
            raise ValueError(
                f"--detections={path} exists and is no COCO results file; choose another name."
            )
    if options.report is not None:
        from pit_keras.evaluation.html_report import PAGE, check_report_folder

        check_report_folder(options.report)
        for written in (options.report, pathlib.Path(options.report) / PAGE):
            check_different_files({**files, "--report": written})


def _evaluate_classifier(options, trained):
    from pit_keras.evaluation.predictions import evaluate_each
    from pit_keras.waits import waiting

    source = open_data_set(trained, options.dataset, options.data_dir, whole=options.split == "all")
    results, predictions = evaluate_each(
        trained,
        source,
        options.split,
        batch_size=options.batch_size or BATCH_SIZE,
        crop=options.crop,
        progress=sys.stdout.isatty(),
    )
    _show(results, options.output)
    if options.report is not None:
        from pit_keras.evaluation.html_report import write_report

        with waiting(f"Writing the report in {options.report}"):
            page = write_report(options.report, trained, source, results, predictions)
        print(f"The report is {page}", file=sys.stderr)


def _evaluate_detector(options, detector):
    refuse(options, ("crop", "report"), "for a detector")
    if options.split == "all":
        raise ValueError("--split=all has no meaning for a detector: ids may occur in both parts.")
    from pit_keras.evaluation.detection import COCO_METRICS, evaluate_detection_source

    results, detections = evaluate_detection_source(
        detector,
        open_data_set(detector, options.dataset, options.data_dir),
        options.split,
        batch_size=options.batch_size or BATCH_SIZE_OF_DETECTOR,
        progress=sys.stdout.isatty(),
    )
    from rich.console import Console
    from rich.table import Table

    metrics = iter(results[name] for name in COCO_METRICS)
    for name, columns in _ROWS:
        table = Table(name, box=None, pad_edge=False, collapse_padding=True)
        for column in columns:
            table.add_column(column, justify="right")
        values = itertools.islice(metrics, len(columns))
        table.add_row("", *("none" if value is None else f"{value:.3f}" for value in values))
        Console(stderr=True).print(table)
    _show(results, options.output)
    if options.detections is not None:
        write_output(options.detections, json.dumps(detections) + "\n")


def _show(results, output):
    text = json.dumps(results, indent=2)
    print(text)
    if output is not None:
        write_output(output, text + "\n")
