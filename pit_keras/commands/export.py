"""`pit-keras export`: write a model in forms that need no Keras."""

import argparse
import dataclasses
import pathlib
import sys

from pit_keras.commands.arguments import (
    add_model_arguments,
    batch_size,
    check_inputs,
    image_files,
    is_detector,
    load_model,
    open_data_set,
    positive,
    refuse,
    share,
)
from pit_keras.errors import undone_at_the_end
from pit_keras.export.formats import (
    DEFAULT_FORMATS,
    FORMATS,
    LEAST_CALIBRATION_IMAGES,
    checked_limits,
)

COMPARE_ON, COMPARE_DETECTOR_ON, CALIBRATE_ON = 256, 32, 128
_PASSED_ON = ("force", "batch_size", "license", "overwrite")


def add_arguments(command):
    add_model_arguments(command)
    argument = command.add_argument
    help_ = "default: the folder `export` in the run folder, or beside the .keras file"
    argument("--output_dir", help=help_)
    others = ", ".join(set(FORMATS) - set(DEFAULT_FORMATS))
    help_ = f"out of {', '.join(FORMATS)} (default: all possible ones but {others})"
    argument("--format", nargs="+", metavar="FORMAT", dest="formats", help=help_)
    argument("--dataset", help="where images come from (default: the run's)")
    argument("--data_dir", help="where TFDS keeps its data sets")
    help_ = "files or folders to compare on (default: the validation part, or two photographs)"
    argument("--images", nargs="+", metavar="IMAGE", help=help_)
    help_ = f"{LEAST_CALIBRATION_IMAGES} or more to calibrate int8 on (default: the training part)"
    argument("--calibration_images", nargs="+", metavar="IMAGE", help=help_)
    help_ = f"images (default {COMPARE_ON}, of a detector {COMPARE_DETECTOR_ON})"
    argument("--compare_on", type=positive, metavar="N", help=help_)
    help_ = f"images (default {CALIBRATE_ON})"
    argument("--calibrate_on", type=_images_for_calibration, metavar="N", help=help_)
    limits = ", ".join(f"{n}={f.min_agreement}" for n, f in FORMATS.items() if f.min_agreement)
    argument(
        "--min_agreement",
        nargs="+",
        type=_share_of_format,
        default=(),
        metavar="FORMAT=SHARE",
        help=f"least share of images with the Keras model's top-1 class (default: {limits})",
    )
    argument("--force", action="store_true", help="write forms that disagree too")
    argument("--batch_size", type=batch_size, default=1, help="of the TFLite files (default 1)")
    argument("--license", metavar="TEXT", help="of the weights, to be written in them")
    argument("--overwrite", action="store_true", help="replace an earlier export")


def _share_of_format(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"must be like tflite_int8=0.95, got {text}")
    return name, share(value)


def _images_for_calibration(text):
    if positive(text) < LEAST_CALIBRATION_IMAGES:
        raise argparse.ArgumentTypeError(
            f"must be {LEAST_CALIBRATION_IMAGES} or more for a calibration to hold; got {text}"
        )
    return int(text)


def run(options):
    """Writes the exported forms and prints how closely each agrees with the Keras model."""
    paths = image_files(options.images or [])
    calibration_paths = image_files(options.calibration_images or [])
    formats = tuple(dict.fromkeys(options.formats or DEFAULT_FORMATS))
    limits = dict(options.min_agreement)
    checked_limits(limits, formats)
    given, least = len(calibration_paths), LEAST_CALIBRATION_IMAGES
    if options.calibration_images and given < least:
        raise ValueError(f"--calibration_images gives {given} images; int8 needs {least} or more.")
    check_inputs(options)
    from pit_keras.export.export_folder import check_targets
    from pit_keras.export.exporting import REMEDY, explain
    from pit_keras.export.exporting import export as export_model
    from pit_keras.waits import waiting

    run = pathlib.Path(options.model)
    output_dir = options.output_dir or (run if run.is_dir() else run.parent) / "export"
    check_targets(output_dir, formats, options.overwrite)
    trained = load_model(options)
    if is_detector(trained):
        refuse(options, ("calibration_images", "calibrate_on"), "for a detector")
        if (options.compare_on or 0) > COMPARE_DETECTOR_ON:
            # They are kept in memory as they are.
            raise ValueError(f"--compare_on of a detector is at most {COMPARE_DETECTOR_ON}.")
    with undone_at_the_end(), waiting("Exporting"):
        has_all = paths and (calibration_paths or is_detector(trained))
        source = _source(options, trained, needed=not has_all)
        trained = _named_by(source, trained, options)
        with waiting("Reading images"):
            compare_on = _compare_on(options, trained, source, paths)
            calibrate_on = _calibrate_on(options, trained, source, calibration_paths)
        report = export_model(
            trained,
            output_dir,
            formats=options.formats and formats,
            compare_on=compare_on,
            calibrate_on=calibrate_on,
            min_agreement=limits,
            **{name: getattr(options, name) for name in _PASSED_ON},
        )
    _print_report(report, output_dir)
    forced = [entry for entry in report.rejected if entry.written]
    if forced:
        print(f"Written though {explain(forced)}.", file=sys.stderr)
    rejected = [entry for entry in report.rejected if not entry.written]
    if rejected:
        raise ValueError(f"Not written: {explain(rejected)}; {REMEDY}.")
    if options.formats and report.left_out:
        raise ValueError(f"Not written: {', '.join(report.left_out)}, for the reason above.")


def _print_report(report, output_dir):
    from rich.console import Console
    from rich.table import Table

    rows = report.rows()
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for index, name in enumerate(report.columns):
        # Headings may wrap between their words, cells not at all.
        width = max(map(len, [*name.split(), *(row[index] for row in rows)]))
        table.add_column(name, justify="right" if index else "left", width=width)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    for name, reason in report.left_out.items():
        print(f"{name} is left out: {reason}.", file=sys.stderr)
    print(f"Written to {output_dir}; its README.md says how to use each file.", file=sys.stderr)


def _compare_on(options, trained, source, paths):
    """A sample of the given images, of the validation part, or of two photographs."""
    from pit_keras.data.preprocessing import load_image
    from pit_keras.export.agreement import real_images, take_sample, validation_images

    if paths:
        images = (load_image(path, trained.apply_orientation) for path in paths)
        return take_sample(images, trained.data, "images given")
    if source is not None and source.sizes["val"]:
        usual = COMPARE_DETECTOR_ON if is_detector(trained) else COMPARE_ON
        images = validation_images(source, options.compare_on or usual)
        return take_sample(images, trained.data, f"images of the validation part of {source.name}")
    words = "Compared on two photographs; --dataset or --images gives a better comparison."
    print(words, file=sys.stderr)
    return take_sample(real_images(), trained.data, "pieces of two photographs")


def _calibrate_on(options, trained, source, paths):
    """A sample of the given images or of a classifier's training part; None without either."""
    from pit_keras.data.preprocessing import load_image
    from pit_keras.export.agreement import take_sample, training_images

    if paths:
        images = (load_image(path, trained.apply_orientation) for path in paths)
        return take_sample(images, trained.data, "images given")
    if source is None or is_detector(trained):
        return None
    images = training_images(source, options.calibrate_on or CALIBRATE_ON)
    return take_sample(images, trained.data, f"images of the training part of {source.name}")


def _source(options, trained, needed):
    """The data set that is asked for, or the run's own where one is needed and at hand."""
    if options.dataset or options.data_dir:
        return open_data_set(trained, options.dataset, options.data_dir)
    if trained.folder is None or not needed:
        return None
    try:
        return open_data_set(trained)
    except (ValueError, OSError) as error:
        print(f"The run's data set cannot be opened: {error}", file=sys.stderr)
        return None


def _named_by(source, trained, options):
    """The model with the data set's class names, if it came without any."""
    if source is None or trained.folder is not None or options.classes is not None:
        return trained
    given, own = len(source.class_names), len(trained.class_names)
    if given != own:
        raise ValueError(f"{options.dataset} has {given} classes and the model {own}.")
    return dataclasses.replace(trained, class_names=source.class_names)
