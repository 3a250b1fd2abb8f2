"""The command `pit-keras`: look at models, use a trained one, measure it, export it."""

import argparse
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console
from rich.progress import track
from rich.table import Table

from pit_keras.errors import exit_with_one_sentence

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
IMAGES_TO_COMPARE = 32


def main(arguments=None):
    """Runs one command; `arguments` are those of the process by default."""
    options = _parser().parse_args(arguments)
    with exit_with_one_sentence():
        options.run(options)


def _parser():
    parser = argparse.ArgumentParser(prog="pit-keras", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = _command(commands, "models", models, "list the models with their size and cost")
    command.add_argument("pattern", nargs="?", default="*", help="such as 'pit_*'")

    command = _command(commands, "predict", predict, "name what is in pictures")
    _model_arguments(command)
    command.add_argument(
        "images", nargs="+", metavar="IMAGE", help="JPEG or PNG files, or folders of them"
    )
    command.add_argument("--top", type=_positive, default=5, help="classes to show (default 5)")
    command.add_argument("--output", metavar="PICTURE", help="also draw the pictures with names")

    command = _command(commands, "evaluate", evaluate, "measure accuracy on a data set")
    _model_arguments(command)
    command.add_argument(
        "--dataset", help="digits, folder:PATH or a TFDS name (default: the run's)"
    )
    command.add_argument("--data_dir", help="where TFDS keeps its data sets")
    command.add_argument("--split", choices=("train", "val"), default="val")
    command.add_argument("--batch_size", type=_positive, default=64)
    command.add_argument("--crop", type=float, help="centre crop's share (default: the run's)")
    command.add_argument("--output", metavar="JSON", help="also write the results to a file")

    command = _command(commands, "export", export, "write a SavedModel and a TFLite file")
    _model_arguments(command)
    command.add_argument("--output_dir", help="default: the folder `export` in the run's folder")
    command.add_argument(
        "--format",
        nargs="+",
        choices=("saved_model", "tflite"),
        dest="formats",
        default=("saved_model", "tflite"),
    )
    command.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGE",
        help="pictures to compare on (default: the run's, or two photographs)",
    )
    command.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    return parser


def _command(commands, name, run, summary):
    command = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    command.set_defaults(run=run)
    return command


def _model_arguments(command):
    command.add_argument("--model", required=True, help="a run folder or a .keras file")
    command.add_argument(
        "--classes", metavar="FILE", help="class names, one a line (default: the run folder's)"
    )


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return value


def models(options):
    """Prints a table of models: parameters, multiply-accumulates and token grids at 224 x 224."""
    from pit_keras.analysis.cost import count_macs
    from pit_keras.models import create_model, list_models, variant_of

    names = list_models(options.pattern)
    if not names:
        raise ValueError(
            f"No model matches {options.pattern!r}; models are {', '.join(list_models())}."
        )
    table = Table("model", "parameters", "MACs (G)", "grids at 224 x 224", box=None, pad_edge=False)
    for column in table.columns[1:3]:
        column.justify = "right"
    console = Console()
    with console.status("Counting"):
        for name in names:
            model = create_model(name)
            grids = "  ".join(f"{h}x{w}" for h, w in variant_of(name).grids((224, 224)))
            macs = count_macs(model) / 1e9
            table.add_row(name, f"{model.count_params():,}", f"{macs:.2f}", grids)
    console.print(table)


def predict(options):
    """Prints the likeliest classes of image files, and draws them if asked."""
    from pit_keras.evaluation.trained_model import predict as predict_files

    if options.output:
        from pit_keras.analysis.plots import check_picture_name, draw_predictions

        check_picture_name(options.output)
    paths = _image_files(options.images)
    if options.output and pathlib.Path(options.output).resolve() in [p.resolve() for p in paths]:
        raise ValueError(f"--output={options.output} is one of the pictures to look at.")
    predictions = predict_files(
        _classifier(options),
        track(paths, "Reading", console=Console(stderr=True), transient=True),
        options.top,
    )
    for path, best in zip(paths, predictions, strict=True):
        print(f"{path}: " + ", ".join(f"{name} {share:.1%}" for name, share in best))
    if options.output:
        draw_predictions(paths, predictions, options.output)
        print(f"Drawn in {options.output}")


def evaluate(options):
    """Prints top-1, top-5 and loss of a model over a split, exact to the last image."""
    from pit_keras.evaluation.classification import evaluate_source

    trained = _trained(options)
    source = _source(trained, options.dataset, options.data_dir)
    results = evaluate_source(
        trained,
        source,
        options.split,
        batch_size=options.batch_size,
        crop=options.crop,
        progress=sys.stdout.isatty(),
    )
    text = json.dumps(results, indent=2)
    print(text)
    if options.output:
        pathlib.Path(options.output).write_text(text + "\n")


def export(options):
    """Writes the exported forms and prints how closely each agrees with the Keras model."""
    from pit_keras.export.exporting import export as export_model

    trained = _trained(options)
    run = pathlib.Path(options.model)
    output_dir = options.output_dir or (run if run.is_dir() else run.parent) / "export"
    for exported in export_model(
        trained,
        output_dir,
        formats=tuple(dict.fromkeys(options.formats)),
        images=_images_to_compare(options, trained),
        overwrite=options.overwrite,
    ):
        print(f"{exported.path} ({exported.bytes / 1e6:.1f} MB): {exported.agreement}")


def _image_files(arguments):
    """The files among the arguments, and those in the folders among them."""
    paths = []
    for argument in map(pathlib.Path, arguments):
        found = sorted(p for p in argument.glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if argument.is_dir() and not found:
            raise ValueError(f"The folder {argument} holds no {', '.join(IMAGE_SUFFIXES)} files.")
        paths += found if argument.is_dir() else [argument]
    return paths


def _classifier(options):
    """A Keras model, or a TFLite file that was exported from one."""
    if pathlib.Path(options.model).suffix == ".tflite":
        from pit_keras.export.tflite_model import load_tflite_model

        return load_tflite_model(options.model)
    return _trained(options)


def _trained(options):
    from pit_keras.evaluation.trained_model import load_trained_model

    names = None
    if options.classes:
        names = pathlib.Path(options.classes).read_text().splitlines()
    return load_trained_model(options.model, names)


def _source(trained, dataset, data_dir):
    """The data set that is asked for, or else the one that the model was trained on."""
    from pit_keras.data.sources import open_source

    data = trained.data
    return open_source(
        dataset or data.dataset, data_dir=data_dir or data.data_dir, holdout=data.holdout
    )


def _images_to_compare(options, trained):
    from pit_keras.data.preprocessing import load_image
    from pit_keras.export.exporting import real_images

    if options.images:
        return [load_image(path) for path in options.images]
    try:
        source = _source(trained, None, None)
    except (ValueError, OSError) as error:
        print(f"Comparing on two photographs, since the run's data is not at hand: {error}")
        return real_images()
    examples = source.scan("val").take(IMAGES_TO_COMPARE)
    loaded = examples.map(lambda example: source.load(example["image"])).ignore_errors()
    return [image.numpy() for image in loaded] or real_images()
