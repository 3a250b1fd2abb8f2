"""What several commands share: arguments, and what they name."""

import argparse
import pathlib

from rich.console import Console
from rich.progress import track

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def add_command(commands, name, run, summary):
    command = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    command.set_defaults(run=run)
    return command


def add_model_arguments(command):
    command.add_argument("--model", required=True, help="a run folder or a .keras file")
    command.add_argument(
        "--classes", metavar="FILE", help="class names, one a line (default: the run folder's)"
    )


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more; got {text!r}")
    return int(text)


def image_size(text):
    try:
        height, width = (
            int(side) for side in (text if "," in text else f"{text},{text}").split(",")
        )
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be like 224 or 192,256, got {text}") from None
    return height, width


def progress(items, words):
    """A bar that is drawn only where someone watches, and never among the results."""
    console = Console(stderr=True)
    return track(items, words, console=console, transient=True, disable=not console.is_terminal)


def image_files(arguments):
    """The files among the arguments, and those in the folders among them."""
    paths = []
    for argument in map(pathlib.Path, arguments):
        if not argument.exists():
            raise FileNotFoundError(f"There is no image at {argument}.")
        found = [argument] if not argument.is_dir() else _images_in(argument)
        if not found:
            raise ValueError(f"The folder {argument} holds no {', '.join(IMAGE_SUFFIXES)} files.")
        paths += found
    return paths


def _images_in(folder):
    """The images in a folder by name, without hidden files, such as a Mac's `._photo.jpg`."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and not path.is_dir()
    )


def load_predictor(options):
    """A classifier or detector in Keras, or a TFLite file that was exported from one."""
    return load_tflite(options) if is_tflite(options.model) else load_trained(options)


def load_classifier(options):
    """A Keras classifier, or a TFLite file that was exported from one."""
    if not is_tflite(options.model):
        return load_trained_classifier(options)
    classifier = load_tflite(options)
    if is_detector(classifier):
        raise ValueError(f"{options.model} is a detector; a classifier is wanted here.")
    return classifier


def load_tflite(options):
    from pit_keras.export.tflite import is_tflite_detector, load_tflite_detector, load_tflite_model

    load = load_tflite_detector if is_tflite_detector(options.model) else load_tflite_model
    return load(options.model, given_class_names(options))


def load_trained(options):
    """A Keras classifier or detector."""
    _check_keras(options.model)
    from pit_keras.runs.trained_detector import load_any

    return load_any(options.model, given_class_names(options))


def load_trained_classifier(options):
    _check_keras(options.model)
    from pit_keras.runs.trained_model import load_trained_model

    return load_trained_model(options.model, given_class_names(options))


def is_detector(trained):
    """Whether what `load_predictor` or `load_trained` gave is a detector."""
    return hasattr(trained, "detections_of")


def refuse(options, names, kind):
    """Refuses the options that have no meaning for a kind of model, such as "a detector".

    Raises:
        ValueError: If one of them is given.
    """
    for name in names:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} has no meaning for {kind}, which {options.model} is.")


def _check_keras(model):
    if is_tflite(model):
        raise ValueError(
            f"--model={model} is a TFLite file, which only predict and serve take; give the run "
            "folder or the .keras file that it was exported from."
        )


def is_tflite(model):
    return pathlib.Path(model).suffix.lower() == ".tflite"


def given_class_names(options):
    from pit_keras.runs.trained_model import read_class_names

    return None if options.classes is None else read_class_names(options.classes)


def open_data_set(trained, dataset=None, data_dir=None, whole=False):
    """The data set that is asked for, or else the one that the model was trained on."""
    from pit_keras.data.labelled_images import open_source

    data = trained.data
    return open_source(
        data.dataset if dataset is None else dataset,
        data_dir=data_dir or data.data_dir,
        holdout=None if whole else data.holdout,
    )


def open_detection_data_set(trained, dataset=None, data_dir=None):
    """The data set with boxes that is asked for, or else the one that the model was trained on."""
    from pit_keras.data.coco import open_detection_source

    data = trained.data
    return open_detection_source(
        data.dataset if dataset is None else dataset, data_dir=data_dir or data.data_dir
    )


def share(text):
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a number in 0..1; got {text!r}")
    return number
