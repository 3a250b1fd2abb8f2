"""The command `pit-keras`: look at models and runs, use, measure, convert, export, serve them."""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from pit_keras.errors import check_can_write, end_quietly, exit_with_one_sentence
from pit_keras.export.formats import (
    FORMATS,
    LEAST_CALIBRATION_IMAGES,
    check_formats,
    checked_limits,
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MOST_SETTINGS = 6  # columns of the table of runs


def main(arguments=None):
    """Runs one command; `arguments` are those of the process by default."""
    # Names of files and classes may hold what the terminal's encoding lacks.
    sys.stdout.reconfigure(errors="backslashreplace")
    with end_quietly(), exit_with_one_sentence(), _warnings_in_one_sentence():
        options = _parser().parse_args(arguments)
        options.run(options)


@contextlib.contextmanager
def _warnings_in_one_sentence():
    """Shows our warnings without the line of code that they come from."""
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _parser():
    parser = argparse.ArgumentParser(prog="pit-keras", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        _add_models,
        _add_runs,
        _add_predict,
        _add_evaluate,
        _add_convert,
        _add_export,
        _add_serve,
    ):
        add(commands)
    return parser


def _add_models(commands):
    command = _command(commands, "models", models, "list the models with their size and cost")
    command.add_argument("pattern", nargs="?", default="*", help="such as 'pit_*'")


def _add_runs(commands):
    command = _command(commands, "runs", runs, "compare training runs")
    command.add_argument(
        "folders", nargs="+", metavar="DIR", help="a folder with run folders below it, or a run's"
    )
    command.add_argument(
        "--sort",
        metavar="COLUMN",
        default="top1",
        help="run, state, model, recipe, dataset, epochs, top1 (default), loss, images_per_second, "
        "or a setting such as optimizer.learning_rate",
    )
    command.add_argument("--output", metavar="PICTURE", help="also draw loss and top-1 over epochs")
    command.add_argument(
        "--csv", metavar="FILE", help="also write the table, with all settings that differ"
    )


def _add_predict(commands):
    command = _command(commands, "predict", predict, "name what is in pictures")
    _model_arguments(command)
    command.add_argument(
        "images", nargs="+", metavar="IMAGE", help="JPEG or PNG files, or folders of them"
    )
    command.add_argument("--top", type=_positive, default=5, help="classes to show (default 5)")
    command.add_argument("--output", metavar="PICTURE", help="also draw the pictures with names")


def _add_evaluate(commands):
    command = _command(commands, "evaluate", evaluate, "measure accuracy on a data set")
    _model_arguments(command)
    command.add_argument(
        "--dataset", help="digits, folder:PATH or a TFDS name (default: the run's)"
    )
    command.add_argument("--data_dir", help="where TFDS keeps its data sets")
    command.add_argument(
        "--split",
        choices=("train", "val", "all"),
        default="val",
        help="val (default): the validation part, or the share of the images that was held out for "
        "it; train: the others; all: every image of both",
    )
    command.add_argument("--batch_size", type=_positive, default=64)
    command.add_argument("--crop", type=float, help="centre crop's share (default: the run's)")
    command.add_argument("--output", metavar="JSON", help="also write the results to a file")


def _add_convert(commands):
    command = _command(commands, "convert", convert, "turn a checkpoint into a .keras file")
    command.add_argument(
        "checkpoint", help="a .safetensors, .pth or .keras file, or imagenet for the released one"
    )
    command.add_argument("--model", help="its model (default: what the checkpoint looks like)")
    command.add_argument("--output", metavar="FILE", help="default: MODEL.keras")
    command.add_argument(
        "--image_size",
        type=_image_size,
        metavar="PIXELS",
        help="side, or HEIGHT,WIDTH (default: the checkpoint's)",
    )
    command.add_argument(
        "--weights_across_distillation",
        action="store_true",
        help="allow a distilled checkpoint for a plain model, and the reverse",
    )
    command.add_argument("--overwrite", action="store_true", help="replace an earlier file")


def _add_export(commands):
    command = _command(commands, "export", export, "write a model in forms that need no Keras")
    _model_arguments(command)
    command.add_argument("--output_dir", help="default: the folder `export` in the run's folder")
    command.add_argument(
        "--format",
        nargs="+",
        metavar="FORMAT",
        dest="formats",
        help=f"out of {', '.join(FORMATS)} (default: all that can be written)",
    )
    command.add_argument("--dataset", help="where images come from (default: the run's)")
    command.add_argument("--data_dir", help="where TFDS keeps its data sets")
    command.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGE",
        help="JPEG or PNG files, or folders of them, to compare on (default: the data set's "
        "validation part, or two photographs)",
    )
    command.add_argument(
        "--calibration_images",
        nargs="+",
        metavar="IMAGE",
        help=f"{LEAST_CALIBRATION_IMAGES} or more to calibrate int8 on (default: the data set's "
        "training part)",
    )
    command.add_argument(
        "--compare_on", type=_positive, default=256, metavar="N", help="images (default 256)"
    )
    command.add_argument(
        "--calibrate_on",
        type=_images_for_calibration,
        default=128,
        metavar="N",
        help="images (default 128)",
    )
    command.add_argument(
        "--min_agreement",
        nargs="+",
        type=_share_of_format,
        default=(),
        metavar="FORMAT=SHARE",
        help="least share of images with the Keras model's likeliest class (default: "
        + ", ".join(f"{n}={f.min_agreement}" for n, f in FORMATS.items() if f.min_agreement)
        + ")",
    )
    command.add_argument(
        "--force", action="store_true", help="write also what does not agree closely enough"
    )
    command.add_argument(
        "--batch_size", type=_positive, default=1, help="of the TFLite files (default 1)"
    )
    command.add_argument("--license", metavar="TEXT", help="of the weights, to be written in them")
    command.add_argument("--overwrite", action="store_true", help="replace an earlier export")


def _add_serve(commands):
    command = _command(commands, "serve", serve, "try a model in a browser and over HTTP")
    command.add_argument(
        "--model", required=True, help="a run folder, a .keras file or an exported .tflite file"
    )
    command.add_argument(
        "--classes", metavar="FILE", help="class names, one a line (default: the model's own)"
    )
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve at (default 127.0.0.1: for this machine alone; 0.0.0.0: for all)",
    )
    command.add_argument(
        "--port", type=_port, default=8501, help="default 8501; 0: one that is free"
    )
    command.add_argument(
        "--name", help="what addresses call the model (default: as its folder or file)"
    )
    for option, default, help_ in (
        ("--max_batch", 8, "images that the model sees at once"),
        ("--max_queue", 32, "images in the server; more are refused with 503"),
        ("--max_request_mb", 16, "size of a request"),
        ("--max_pixels", 50_000_000, "height times width of an image"),
        ("--timeout", 30, "seconds that a client has to send a request"),
    ):
        command.add_argument(
            option, type=_positive, default=default, help=f"{help_} (default {default})"
        )


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


def _share_of_format(text):
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be like tflite_int8=0.95, got {text}") from None


def _images_for_calibration(text):
    if _positive(text) < LEAST_CALIBRATION_IMAGES:
        raise argparse.ArgumentTypeError(
            f"must be {LEAST_CALIBRATION_IMAGES} or more for a calibration to hold; got {text}"
        )
    return int(text)


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more; got {text!r}")
    return int(text)


def _port(text):
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 65535; got {text!r}")
    return int(text)


def _progress(items, words):
    """A bar that is drawn only where someone watches, and never among the results."""
    console = Console(stderr=True)
    return track(items, words, console=console, transient=True, disable=not console.is_terminal)


def _image_size(text):
    try:
        height, width = (
            int(side) for side in (text if "," in text else f"{text},{text}").split(",")
        )
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be like 224 or 192,256, got {text}") from None
    return height, width


def models(options):
    """Prints a table of models: parameters, multiply-accumulates, stages' grids at 224 x 224."""
    from pit_keras.analysis.cost import count_macs, count_parameters
    from pit_keras.models import create_model, list_models, variant_of

    names = list_models(options.pattern)
    if not names:
        raise ValueError(
            f"No model matches {options.pattern!r}; models are {', '.join(list_models())}."
        )
    table = Table("model", "parameters", "MACs (G)", "grids at 224 x 224", box=None, pad_edge=False)
    for column in table.columns[1:3]:
        column.justify = "right"
    for name in _progress(names, "Counting"):
        model = create_model(name)
        grids = "  ".join(f"{h}x{w}" for h, w in variant_of(name).grids((224, 224)))
        macs = count_macs(model) / 1e9
        table.add_row(name, f"{count_parameters(model):,}", f"{macs:.2f}", grids)
    Console().print(table)


def runs(options):
    """Prints a table of the runs in folders, and writes and draws it if asked."""
    for path, option in ((options.output, "--output"), (options.csv, "--csv")):
        if path is not None:
            check_can_write(path, option)
    if options.output is not None:
        from pit_keras.analysis.plots import check_picture, draw_runs

        check_picture(options.output, 0)
    from pit_keras.analysis.runs import read_runs, sorted_runs, write_table

    found = sorted_runs(read_runs(options.folders), options.sort)
    if not found:
        raise ValueError(
            f"There is no run in or below {', '.join(options.folders)}: no folder holds the "
            "config.json of one."
        )
    _print_runs(found, Console())
    if options.csv is not None:
        write_table(found, options.csv)
        print(f"Written to {options.csv}", file=sys.stderr)
    if options.output is not None:
        count = draw_runs(found, options.output)
        which = "" if count == len(found) else f": {count} of the {len(found)} runs"
        print(f"Drawn in {options.output}{which}", file=sys.stderr)


def _print_runs(runs, console):
    """A table with as many of the settings that differ as there is room for, and what is wrong."""
    from pit_keras.analysis.runs import COLUMNS, differing_settings, follows_from_recipe
    from pit_keras.training.config import WITHOUT_EFFECT_ON_THE_RESULT

    settings = [
        path
        for path in differing_settings(runs)
        if path not in WITHOUT_EFFECT_ON_THE_RESULT and not follows_from_recipe(path, runs)
    ]
    # Where there is little room, what all runs share is told once.
    shared = {
        column: runs[0].value(column)
        for column in ("model", "recipe", "dataset")
        if len(runs) > 1 and len({run.value(column) for run in runs}) == 1
    }
    others = [column for column in COLUMNS if column not in shared]
    most = min(len(settings), MOST_SETTINGS)
    layouts = [[*COLUMNS, *settings[:most]]]
    layouts += [[*others, *settings[:count]] for count in range(most, -1, -1)]
    columns = next((columns for columns in layouts if _fits(runs, columns, console)), layouts[-1])
    console.print(_table_of_runs(runs, columns, console.width))

    told = [f"{column} {value}" for column, value in shared.items() if column not in columns]
    left_out = [path for path in settings if path not in columns]
    notes = [f"All have {', '.join(told)}."] if told else []
    if left_out:
        notes.append(f"They differ in {', '.join(left_out)} too: more width or --csv shows it.")
    notes += [f"{run.run}: {run.problem}" for run in runs if run.problem]
    if notes:
        print("", *notes, sep="\n")


def _fits(runs, columns, console):
    """Whether a table of these columns is no wider than the terminal."""
    table = _table_of_runs(runs, columns, console.width)
    anything = console.options.update(max_width=10_000)
    return console.measure(table, options=anything).maximum <= console.width


def _table_of_runs(runs, columns, width):
    table = Table(box=None, pad_edge=False, collapse_padding=width < 100)
    widest = {"run": width // 3, "dataset": width // 5}
    for column in columns:
        is_number = column in ("epochs", "top1", "loss", "images_per_second")
        is_setting = "." in column
        table.add_column(
            {"images_per_second": "images/s"}.get(column, column.replace(".", ".\n")),
            justify="right" if is_number else "left",
            max_width=width // 5 if is_setting else widest.get(column),
            no_wrap=not is_setting and column not in widest,
            overflow="fold",
        )
    for run in runs:
        table.add_row(*(Text(_cell_of_run(run, column)) for column in columns))
    return table


def _cell_of_run(run, column):
    value = run.value(column)
    if value is None:
        return "None" if column in run.settings else ""
    if column == "epochs":
        return f"{value}/{'?' if run.total_epochs is None else run.total_epochs}"
    usual = "g" if isinstance(value, float) else ""
    form = {"top1": ".4f", "loss": ".4f", "images_per_second": ",.0f"}.get(column, usual)
    return format(value, form)


def predict(options):
    """Prints the likeliest classes of image files, and draws them if asked."""
    paths = _image_files(options.images)
    if options.output is not None:
        check_can_write(options.output, "--output")
        if pathlib.Path(options.output).resolve() in [path.resolve() for path in paths]:
            raise ValueError(f"--output={options.output} is one of the pictures to look at.")
        from pit_keras.analysis.plots import check_picture, draw_predictions

        check_picture(options.output, len(paths))
    from pit_keras.evaluation.trained_model import predict as predict_files

    predictions = predict_files(
        _classifier(options),
        _progress(paths, "Reading"),
        options.top,
    )
    for path, best in zip(paths, predictions, strict=True):
        print(f"{path}: " + ", ".join(f"{name} {share:.1%}" for name, share in best))
    if options.output is not None:
        draw_predictions(paths, predictions, options.output)
        print(f"Drawn in {options.output}", file=sys.stderr)


def evaluate(options):
    """Prints top-1, top-5 and loss of a model over a split, exact to the last image."""
    if options.output is not None:
        check_can_write(options.output, "--output")
    from pit_keras.evaluation.classification import evaluate_source

    trained = _trained(options)
    source = _source(trained, options.dataset, options.data_dir, whole=options.split == "all")
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
    if options.output is not None:
        pathlib.Path(options.output).write_text(text + "\n")


def convert(options):
    """Writes a checkpoint as a .keras file and prints what was carried over."""
    from pit_keras.weights.converting import convert as convert_checkpoint

    path, report = convert_checkpoint(
        options.checkpoint,
        options.output,
        name=options.model,
        image_size=options.image_size,
        across_distillation=options.weights_across_distillation,
        overwrite=options.overwrite,
    )
    print(report)
    print(f"Written to {path} ({path.stat().st_size / 1e6:.1f} MB)")


def export(options):
    """Writes the exported forms and prints how closely each agrees with the Keras model."""
    paths = _image_files(options.images or [])
    calibration_paths = _image_files(options.calibration_images or [])
    formats = tuple(dict.fromkeys(options.formats or FORMATS))
    check_formats(formats)
    limits = dict(options.min_agreement)
    checked_limits(limits, formats)
    if options.calibration_images and len(calibration_paths) < LEAST_CALIBRATION_IMAGES:
        raise ValueError(
            f"--calibration_images gives {len(calibration_paths)} images; int8 needs "
            f"{LEAST_CALIBRATION_IMAGES} or more."
        )
    from pit_keras.export.exporting import check_targets, explain
    from pit_keras.export.exporting import export as export_model

    run = pathlib.Path(options.model)
    output_dir = options.output_dir or (run if run.is_dir() else run.parent) / "export"
    check_targets(output_dir, formats, options.overwrite)
    trained = _trained(options)
    with _status() as announce:
        compare_on, calibrate_on = _samples(options, trained, paths, calibration_paths)
        report = export_model(
            trained,
            output_dir,
            formats=options.formats and formats,
            compare_on=compare_on,
            calibrate_on=calibrate_on,
            min_agreement=limits,
            force=options.force,
            batch_size=options.batch_size,
            license=options.license,
            overwrite=options.overwrite,
            announce=announce,
        )
    _print_report(report, output_dir)
    rejected = [entry for entry in report.rejected if not entry.written]
    if rejected:
        raise ValueError(
            f"Not written: {explain(rejected)}; --force writes it all the same, --min_agreement "
            "changes the limit."
        )


def _print_report(report, output_dir):
    from pit_keras.export.report import COLUMNS

    table = Table(*COLUMNS, box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for row in report.rows():
        table.add_row(*row)
    Console().print(table)
    for name, reason in report.left_out.items():
        print(f"{name} is left out: {reason}.", file=sys.stderr)
    print(f"Written to {output_dir}; its README.md says how to use each file.", file=sys.stderr)


@contextlib.contextmanager
def _status():
    """A function that shows what is being done, where someone watches."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda words: None
        return
    with console.status("Reading images") as status:
        yield status.update


def serve(options):
    """Serves a model over HTTP until it is interrupted."""
    try:
        from pit_keras.serving import server
    except ModuleNotFoundError as error:
        raise ImportError(
            f"serve needs the package {error.name}: pip install pit_keras[serve]."
        ) from error
    from pit_keras.serving.limits import Limits

    name = server.model_name(options.model, options.name)
    limits = Limits(
        max_batch=options.max_batch,
        max_queue=options.max_queue,
        max_request_bytes=1_000_000 * options.max_request_mb,
        max_pixels=options.max_pixels,
        timeout=options.timeout,
    )
    with server.bind(options.host, options.port) as listener:
        server.run(_network(options), name, listener, limits)


def _network(options):
    """A model of either kind, ready for serving."""
    from pit_keras.serving.networks import KerasNetwork, TFLiteNetwork

    return (TFLiteNetwork if _is_tflite(options.model) else KerasNetwork)(_classifier(options))


def _image_files(arguments):
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


def _classifier(options):
    """A Keras model, or a TFLite file that was exported from one."""
    if _is_tflite(options.model):
        from pit_keras.export.tflite_model import load_tflite_model

        return load_tflite_model(options.model, _class_names(options))
    return _trained(options)


def _trained(options):
    if _is_tflite(options.model):
        raise ValueError(
            f"--model={options.model} is a TFLite file, which only predict and serve take; give "
            "the run folder or the .keras file that it was exported from."
        )
    from pit_keras.evaluation.trained_model import load_trained_model

    return load_trained_model(options.model, _class_names(options))


def _is_tflite(model):
    return pathlib.Path(model).suffix.lower() == ".tflite"


def _class_names(options):
    from pit_keras.evaluation.trained_model import read_class_names

    return None if options.classes is None else read_class_names(options.classes)


def _source(trained, dataset=None, data_dir=None, whole=False):
    """The data set that is asked for, or else the one that the model was trained on."""
    from pit_keras.data.sources import open_source

    data = trained.data
    return open_source(
        data.dataset if dataset is None else dataset,
        data_dir=data_dir or data.data_dir,
        holdout=None if whole else data.holdout,
    )


def _samples(options, trained, paths, calibration_paths):
    """The images to compare and to calibrate on; None if there are none for the latter."""
    from pit_keras.data.preprocessing import load_image
    from pit_keras.export.agreement import real_images
    from pit_keras.export.sample import take_sample, training_images, validation_images

    def read(files):
        return take_sample(map(load_image, files), trained.data, "images given")

    source, data = None, trained.data
    if not (paths and calibration_paths) or options.dataset:
        source = _source_if_there(options, trained)
    compare_on = read(paths) if paths else None
    if compare_on is None and source is not None and source.sizes["val"]:
        images = validation_images(source, options.compare_on)
        compare_on = take_sample(images, data, f"images of the validation part of {source.name}")
    if compare_on is None:
        compare_on = take_sample(real_images(), data, "pieces of two photographs")
    calibrate_on = read(calibration_paths) if calibration_paths else None
    if calibrate_on is None and source is not None:
        images = training_images(source, options.calibrate_on)
        calibrate_on = take_sample(images, data, f"images of the training part of {source.name}")
    return compare_on, calibrate_on


def _source_if_there(options, trained):
    """The data set; None where nobody asked for one and the run's own is not at hand."""
    if options.dataset or options.data_dir:
        return _source(trained, options.dataset, options.data_dir)
    try:
        return _source(trained)
    except (ValueError, OSError) as error:
        print(f"The run's data is not at hand: {error}", file=sys.stderr)
        return None
