"""`pit-keras check`: what is wrong with a folder of images, before training."""

import pathlib
import sys
import warnings

from pit_keras.commands.arguments import check_data_set, share
from pit_keras.errors import visible
from pit_keras.runs.run_folder import find_model

EXIT_CODES = {"error": 4, "warning": 3, "remark": 0}  # 1 and 2 are those of wrong input
# Released networks whose features are taken where they are in the cache, the best first.
_RELEASED = ("pit_s", "pit_xs", "pit_ti")


def add_arguments(command):
    argument = command.add_argument
    argument("folder", metavar="FOLDER", help="holds train/CLASS/*, val/CLASS/*, or CLASS/*")
    help_ = "the folder for check.html and check.csv (default: ./NAME_check)"
    argument("--output", metavar="DIR", help=help_)
    help_ = "the share that training holds out where there is no val/ (default 0.1)"
    argument("--holdout", type=share, default=0.1, help=help_)
    help_ = (
        "a run folder or .keras file whose features show wrong labels (default: released weights "
        "of a PiT if they are in the cache, else edges and colours)"
    )
    argument("--model", help=help_)


def run(options):
    """Prints what was found, writes the page and the table; the exit code is the severity's."""
    folder = options.folder.removeprefix("folder:")
    check_data_set(f"folder:{folder}")
    folder = pathlib.Path(folder).expanduser()
    output = pathlib.Path(options.output or f"{folder.resolve().name}_check")
    _check_input(options, folder, output)

    from pit_keras.evaluation.folder_check import check_folder
    from pit_keras.evaluation.folder_page import write_check
    from pit_keras.waits import counted

    check = check_folder(folder, options.holdout, _network(options.model), counted)
    page = write_check(check, output)  # before the summary, whose reader may leave
    for line in _summary(check):
        print(visible(line))
    print(f"The page is {page}", file=sys.stderr)
    sys.exit(next((EXIT_CODES[name] for name in EXIT_CODES if check.count(name)), 0))


def _check_input(options, folder, output):
    """Checks the input before Keras is imported."""
    if not 0 < options.holdout < 1:
        raise ValueError(f"--holdout must be between 0 and 1, got {options.holdout:g}.")
    if folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise ValueError(f"--output={output} lies in {folder}, where it would be a class.")
    if options.model is not None:
        find_model(options.model)
    from pit_keras.evaluation.folder_page import PAGE, TABLE
    from pit_keras.evaluation.web_pages import check_page_folder

    check_page_folder(output, [PAGE, TABLE], "--output")


def _network(model):
    """The network whose features are taken, or None."""
    from pit_keras import create_model, imagenet
    from pit_keras.config.fields import DataConfig
    from pit_keras.runs.trained_model import TrainedModel, load_trained_model
    from pit_keras.weights.released import converted_file

    if model is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # class names do not matter
            return load_trained_model(model)
    for name in _RELEASED:
        if converted_file(name).is_file():
            network = create_model(name, weights="imagenet")
            return TrainedModel(network, imagenet.class_names(), DataConfig())
    return None


def _summary(check):
    from pit_keras.evaluation.folder_check import KINDS

    train, val = (sum(check.images[split]) for split in ("train", "val"))
    yield (
        f"{check.folder}: {train + val:,} images of {len(check.class_names)} classes, {train:,} "
        f"for training and {val:,} for validation."
    )
    for kind, findings in check.by_kind().items():
        more = f" and {len(findings) - 1:,} more" if len(findings) > 1 else ""
        severity, title, _ = KINDS[kind]
        first = findings[0].in_words().rstrip(".")
        yield f"{severity:<7} {len(findings):>6,}  {title}: {first}{more}"
    if not check.findings:
        yield "Nothing was found."
    yield f"Labels are judged by {check.judged_by()}."
