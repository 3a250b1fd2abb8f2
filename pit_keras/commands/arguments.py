"""What several commands share: arguments, and the models, images and data that they name."""

import argparse
import collections
import os
import pathlib
import sys

from pit_keras.config.fields import LARGEST_SIZE
from pit_keras.config.model_names import list_models
from pit_keras.data.image_files import ending, in_words, is_image, is_leftover
from pit_keras.runs.run_folder import find_model, write_atomically

_LARGEST_BATCH = 4096  # larger ones would not fit into memory


def add_model_arguments(command):
    command.add_argument("--model", required=True, help="a run folder or a .keras file")
    command.add_argument(
        "--classes", metavar="FILE", help="class names, one a line (default: the run folder's)"
    )


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more; got {text!r}")
    return int(text)


def batch_size(text):
    return _at_most(_LARGEST_BATCH, positive(text))


def _at_most(most, number):
    if number > most:
        raise argparse.ArgumentTypeError(f"must be at most {most}; got {number}")
    return number


def image_size(text):
    sides = text.split(",")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"must be like 224 or 192,256, got {text}")
    return tuple(_at_most(LARGEST_SIZE, int(side)) for side in (sides[0], sides[-1]))


def share(text):
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a number in 0..1; got {text!r}")
    return number


def models_matching(pattern):
    names = list_models(pattern)
    if not names:
        raise ValueError(f"No model matches {pattern!r}; models are {', '.join(list_models())}.")
    return names


def image_files(arguments):
    """The files among the arguments, and the images in the folders among them, by name.

    Hidden files, such as a Mac's `._photo.jpg`, are left out; other files are counted in a message.
    """
    paths, left_out = [], collections.Counter()
    for argument in map(pathlib.Path, arguments):
        if not argument.exists():
            raise FileNotFoundError(f"There is no image at {argument}.")
        if not argument.is_dir():
            paths.append(argument)
            continue
        files = [p for p in argument.iterdir() if not is_leftover(p.name) and not p.is_dir()]
        found = [path for path in files if is_image(str(path))]
        left_out.update(ending(path.name) for path in set(files) - set(found))
        if not found:
            instead = f"; it holds {in_words(left_out)}" if left_out else ""
            raise ValueError(f"The folder {argument} holds no JPEG or PNG files{instead}.")
        paths += sorted(found)
    if left_out:
        print(f"Left out, being no JPEG or PNG: {in_words(left_out)}.", file=sys.stderr)
    return paths


def check_inputs(options, *, takes_tflite=False):
    """Checks that the files and folders that a command reads are there, before Keras is imported.

    They are those of --model, --classes and, where the command has it, --dataset.
    """
    if not is_tflite(options.model):
        find_model(options.model)
    elif not takes_tflite:
        raise ValueError(f"{options.model} is a TFLite file; give its run folder or .keras file.")
    elif not os.path.isfile(options.model):
        raise FileNotFoundError(f"{options.model} does not exist; give a TFLite file.")
    if options.classes is not None:
        os.stat(options.classes)
    check_data_set(getattr(options, "dataset", None))


def check_data_set(name):
    """Checks that the folder of "folder:PATH" or "coco:PATH" is there."""
    kind, _, path = (name or "").partition(":")
    path = os.path.normpath(os.path.expanduser(path))
    if kind in ("folder", "coco") and not os.path.exists(path):
        raise FileNotFoundError(f"There is no folder {path}.")


def load_model(options, *, takes_tflite=False, takes_detectors=True, may_rename=True):
    """The model that --model names, with the class names of --classes.

    Without `may_rename` those of a run folder stay: data is matched with them.
    """
    check_inputs(options, takes_tflite=takes_tflite)
    from pit_keras.runs.trained_model import read_class_names
    from pit_keras.waits import waiting

    class_names = None if options.classes is None else read_class_names(options.classes)
    run = None if is_tflite(options.model) else find_model(options.model)[1]
    is_named = class_names is not None and run is not None and run.classes.exists()
    if is_named and not may_rename and class_names != read_class_names(run.classes):
        raise ValueError(
            f"{options.model} has its own class names, with which the data's are matched; leave "
            "--classes out."
        )
    if is_tflite(options.model):
        from pit_keras.export.tflite import load_tflite_model as load
    else:
        from pit_keras.runs.trained_detector import load_any as load
    with waiting(f"Opening {options.model}"):
        trained = load(options.model, class_names)
    if is_detector(trained) and not takes_detectors:
        raise ValueError(f"{options.model} is a detector; a classifier is wanted here.")
    return trained


def write_output(path, text):
    """Writes a file that an option names, whole or not at all; a device or a pipe as it is."""
    path = pathlib.Path(path)
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
    else:
        write_atomically(path.resolve(), text)  # what a link points at


def is_detector(trained):
    return hasattr(trained, "detections_of")


def is_tflite(model):
    return pathlib.Path(model).suffix.lower() == ".tflite"


def refuse(options, names, why):
    """Refuses options that have no meaning, and says why, such as "for a detector"."""
    for name in names:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} has no meaning {why}.")


def open_data_set(trained, dataset=None, data_dir=None, whole=False):
    """A model's data set or another one; `whole` if no images need be held out for validation."""
    from pit_keras.data.coco import open_detection_source
    from pit_keras.data.labelled_images import open_source, oriented
    from pit_keras.waits import waiting

    name = trained.data.dataset if dataset is None else dataset
    data_dir = data_dir or trained.data.data_dir
    with waiting(f"Opening {name}"):
        if is_detector(trained):
            source = open_detection_source(name, data_dir=data_dir)
        else:
            holdout = None if whole else trained.data.held_out(name)
            source = open_source(name, data_dir=data_dir, holdout=holdout)
        return oriented(source, trained.data.apply_orientation)
