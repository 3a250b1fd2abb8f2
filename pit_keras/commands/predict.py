"""`pit-keras predict`: name what is in pictures."""

import pathlib
import sys

from pit_keras.commands.arguments import (
    add_command,
    add_model_arguments,
    image_files,
    load_classifier,
    positive,
    progress,
)
from pit_keras.errors import check_can_write


def add(commands):
    command = add_command(commands, "predict", run, "name what is in pictures")
    add_model_arguments(command)
    command.add_argument(
        "images", nargs="+", metavar="IMAGE", help="JPEG or PNG files, or folders of them"
    )
    command.add_argument("--top", type=positive, default=5, help="classes to show (default 5)")
    command.add_argument("--output", metavar="PICTURE", help="also draw the pictures with names")


def run(options):
    """Prints the likeliest classes of image files, and draws them if asked."""
    paths = image_files(options.images)
    if options.output is not None:
        check_can_write(options.output, "--output")
        if pathlib.Path(options.output).resolve() in [path.resolve() for path in paths]:
            raise ValueError(f"--output={options.output} is one of the pictures to look at.")
        from pit_keras.analysis.plots import check_picture, draw_predictions

        check_picture(options.output, len(paths))
    from pit_keras.evaluation.trained_model import predict as predict_files

    predictions = predict_files(
        load_classifier(options),
        progress(paths, "Reading"),
        options.top,
    )
    for path, best in zip(paths, predictions, strict=True):
        print(f"{path}: " + ", ".join(f"{name} {share:.1%}" for name, share in best))
    if options.output is not None:
        draw_predictions(paths, predictions, options.output)
        print(f"Drawn in {options.output}", file=sys.stderr)
