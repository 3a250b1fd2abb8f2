"""`pit-keras evaluate --suite=...`: the robustness tests of the paper's table 5."""

import argparse
import fractions
import json
import sys

from pit_keras import imagenet
from pit_keras.commands.arguments import check_inputs, load_model, positive, refuse, write_output
from pit_keras.errors import check_outputs


def add_options(command):
    argument = command.add_argument_group("robustness (table 5 of the paper)").add_argument
    help_ = "some of standard,occlusion,imagenet_a,backgrounds,fgsm, separated by commas"
    argument("--suite", type=listed, metavar="NAMES", help=help_)
    help_ = "side of the occluded centre, or several (default: half of the model's image)"
    argument("--occlusion_size", type=whole_numbers, metavar="PIXELS", help=help_)
    help_ = "zero in normalised space (mean, the default), or black pixels"
    argument("--occlusion_fill", choices=("mean", "black"), help=help_)
    argument("--imagenet_a", metavar="tfds|DIR", help="ImageNet-A (default: tfds, in --data_dir)")
    argument("--backgrounds", metavar="DIR", help="the backgrounds challenge's bg_challenge")
    help_ = "largest change of a pixel in 0..1, such as 4/255, or several (default: 8/255)"
    argument("--fgsm_epsilon", type=shares, metavar="EPSILONS", help=help_)
    help_ = (
        "add the results to a table with a row for each model; its row is extended if it was "
        "measured in the same way, else replaced"
    )
    argument("--csv", metavar="FILE", help=help_)
    help_ = "draw the results, and the table's, beside the paper's"
    argument("--chart", metavar="PICTURE", help=help_)


def listed(text):
    return tuple(text.split(","))


def whole_numbers(text):
    return tuple(positive(part) for part in listed(text))


def shares(text):
    try:
        found = tuple(fractions.Fraction(part) for part in listed(text))
    except (ValueError, ZeroDivisionError):
        found = ()
    if not found or not all(0 < number <= 1 for number in found):
        raise argparse.ArgumentTypeError(f"must be in (0, 1], like 8/255 or 0.03; got {text}")
    return found


# The suites that use an option; one that no chosen suite uses is refused.
SUITES_OF_OPTIONS = {
    "occlusion_size": ("occlusion",),
    "occlusion_fill": ("occlusion",),
    "imagenet_a": ("imagenet_a",),
    "backgrounds": ("backgrounds",),
    "fgsm_epsilon": ("fgsm",),
    "dataset": ("standard", "occlusion", "fgsm"),
    "data_dir": ("standard", "occlusion", "fgsm", "imagenet_a"),
    "crop": ("standard", "occlusion", "fgsm", "imagenet_a"),
}
ONLY_WITH_SUITES = (*list(SUITES_OF_OPTIONS)[:5], "csv", "chart")
WIDTH_OF_FILES = 10_000  # more than any table of this command needs


def run(options):
    """Prints the accuracies beside the paper's; fails at the end if a suite could not run."""
    check_inputs(options)
    from pit_keras.evaluation import robustness_table as tables
    from pit_keras.evaluation.suites import checked_suites, run_suites

    suites = checked_suites(options.suite)
    check_options(options, suites)
    check_outputs({f"--{name}": getattr(options, name) for name in ("output", "csv", "chart")})
    if options.csv is not None:
        tables.read_rows(options.csv)
    if options.chart is not None:
        from pit_keras.plots.pictures import check_picture

        check_picture(options.chart, 0)
    trained = load_model(options, takes_detectors=False, may_rename=False)
    accuracies, reasons = run_suites(trained, suites, settings_of(options))
    row = {**row_settings(options, trained, suites), **accuracies}
    if options.output is not None:
        text = json.dumps({**row, "not_run": reasons}, indent=2)
        write_output(options.output, text + "\n")
    if accuracies:
        # The paper's rows are of ImageNet alone.
        is_imagenet = imagenet.in_words(trained.class_names) == imagenet.class_names()
        paper = tables.paper_rows() if is_imagenet else []
        _print(row, paper)
        if reasons:
            row["not_run"] = " ".join(reasons)
        rows = [row] if options.csv is None else tables.put_row(options.csv, row)
        if options.chart is not None:
            from pit_keras.plots.paper_figures import draw_robustness

            draw_robustness(rows, paper, tables.measured_columns(rows), options.chart)
    if reasons:
        raise ValueError(
            " ".join(f"The suite {name} could not run: {why}" for name, why in reasons.items())
        )


def check_options(options, suites):
    chosen = f"--suite={','.join(suites)}"
    for name, users in SUITES_OF_OPTIONS.items():
        if not set(users) & set(suites):
            refuse(options, [name], f"for {chosen}; it is for {', '.join(users)}")
    if options.split != "val" and not set(SUITES_OF_OPTIONS["dataset"]) & set(suites):
        raise ValueError(f"--split has no meaning for {chosen}, which uses whole data sets.")


def settings_of(options):
    from pit_keras.evaluation.suites import SuiteSettings

    same = ("dataset", "data_dir", "split", "crop", "batch_size", "occlusion_fill")
    given = {name: getattr(options, name) for name in (*same, "imagenet_a", "backgrounds")}
    given |= {"occlusion_sizes": options.occlusion_size, "epsilons": options.fgsm_epsilon}
    given = {name: value for name, value in given.items() if value is not None}
    return SuiteSettings(**given, progress=sys.stdout.isatty())


def row_settings(options, trained, suites):
    """The columns that say what was measured, and how."""
    row = {"model": str(options.model), "architecture": trained.model.name}
    if set(SUITES_OF_OPTIONS["dataset"]) & set(suites):
        row |= {"dataset": options.dataset or trained.data.dataset, "split": options.split}
    if set(SUITES_OF_OPTIONS["crop"]) & set(suites):
        row["eval_crop"] = trained.data.eval_crop if options.crop is None else options.crop
    return row


def _print(row, paper):
    """A table in percent: the model's row, and the paper's if there are any."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pit_keras.evaluation.robustness_table import SETTINGS
    from pit_keras.plots.paper_figures import paper_name

    columns = [name for name in row if name not in SETTINGS]
    table = Table(box=None, pad_edge=False)
    table.add_column("top-1 (%)", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    rows = [(row["model"], row), *((f"paper: {paper_name(other)}", other) for other in paper)]
    for label, values in rows:
        cells = (f"{100 * values[name]:.1f}" if name in values else "" for name in columns)
        table.add_row(Text(label), *cells)
    # In a file each row is one line.
    Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES).print(table)
    if paper:
        print(f"\nThe paper's rows: {paper[0]['source']}.")
