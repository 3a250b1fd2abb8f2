"""`pit-keras evaluate`: measure accuracy on a data set."""

import json
import pathlib
import sys

from pit_keras.commands import detectors as detection
from pit_keras.commands import robustness
from pit_keras.commands.arguments import (
    add_command,
    add_model_arguments,
    is_detector,
    load_model,
    open_data_set,
    positive,
    refuse,
)
from pit_keras.errors import check_different_files, check_outputs

BATCH_SIZE = 64


def add(commands):
    command = add_command(
        commands, "evaluate", run, "measure accuracy, or COCO's metrics, on a data set"
    )
    add_model_arguments(command)
    argument = command.add_argument
    argument("--dataset", help="digits, folder:PATH, coco:PATH or a TFDS name (default: the run's)")
    argument("--data_dir", help="where TFDS keeps its data sets")
    help_ = "val (default): the validation or the held-out images; train: the others; all: both"
    argument("--split", choices=("train", "val", "all"), default="val", help=help_)
    help_ = f"images at a time (default {BATCH_SIZE}, with a detector {detection.BATCH_SIZE})"
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
        for name in ("report", "detections"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} has no meaning with --suite.")
        return robustness.run(options)
    robustness.check_without_suites(options)
    _check_outputs(options)
    trained = load_model(options)
    if is_detector(trained):
        detection.evaluate(options, trained)
    else:
        refuse(options, ("detections",), "a classifier")
        _evaluate_classifier(options, trained)


def _check_outputs(options):
    files = {"--output": options.output, "--detections": options.detections}
    check_outputs(files)
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
    from pit_keras.evaluation.classification import evaluate_source
    from pit_keras.evaluation.predictions import evaluate_each

    source = open_data_set(trained, options.dataset, options.data_dir, whole=options.split == "all")
    arguments = {
        "split": options.split,
        "batch_size": options.batch_size or BATCH_SIZE,
        "crop": options.crop,
        "progress": sys.stdout.isatty(),
    }
    if options.report is None:
        results = evaluate_source(trained, source, **arguments)
    else:
        results, predictions = evaluate_each(trained, source, **arguments)
    text = json.dumps(results, indent=2)
    print(text)
    if options.output is not None:
        pathlib.Path(options.output).write_text(text + "\n")
    if options.report is not None:
        from pit_keras.evaluation.html_report import write_report

        page = write_report(options.report, trained, source, results, predictions)
        print(f"The report is {page}", file=sys.stderr)
