"""`pit-keras runs`: compare training runs."""

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pit_keras.errors import check_outputs, visible

MOST_SETTINGS = 6  # columns of the table of runs
_METRICS = ("top1", "AP", "val_loss")  # columns of some kinds of run
FORMS = {"top1": ".4f", "AP": ".4f", "val_loss": ".4f", "loss": ".4f", "images_per_second": ",.0f"}


def add_arguments(command):
    argument = command.add_argument
    argument("folders", nargs="+", metavar="DIR", help="a run folder, or one with runs below it")
    help_ = (
        "run, state, model, recipe, dataset, epochs, top1 (default; of detectors AP), val_loss, "
        "loss, images_per_second, or a setting such as optimizer.learning_rate"
    )
    argument("--sort", metavar="COLUMN", help=help_)
    argument("--output", metavar="PICTURE", help="also draw loss and top-1 (AP) over epochs")
    argument("--csv", metavar="FILE", help="also write the table, with all settings that differ")


def run(options):
    """Prints a table of the runs in folders, and writes and draws it if asked."""
    check_outputs({"--output": options.output, "--csv": options.csv})
    if options.output is not None:
        from pit_keras.plots.pictures import check_picture, draw_runs

        check_picture(options.output, 0)
    from pit_keras.runs.comparison import read_runs, sorted_runs, write_table

    found = read_runs(options.folders)
    if not found:
        raise ValueError(f"There is no run in or below {', '.join(options.folders)}.")
    only_detectors = all(run.figure == "AP" for run in found)
    found = sorted_runs(found, options.sort or ("AP" if only_detectors else "top1"))
    _print_runs(found, Console())
    if options.csv is not None:
        write_table(found, options.csv)
        print(f"Written to {options.csv}", file=sys.stderr)
    if options.output is not None:
        count = draw_runs(found, options.output)
        which = "" if count == len(found) else f": {count} of the {len(found)} runs"
        print(f"Drawn in {options.output}{which}", file=sys.stderr)


def _print_runs(runs, console):
    """A table with as many of the differing settings as fit, and notes on what it leaves out."""
    from pit_keras.config.fields import WITHOUT_EFFECT_ON_THE_RESULT
    from pit_keras.runs.comparison import COLUMNS, differing_settings, follows_from_recipe

    settings = [
        path
        for path in differing_settings(runs)
        if path not in WITHOUT_EFFECT_ON_THE_RESULT and not follows_from_recipe(path, runs)
    ]
    # A narrow terminal gets a note on what all runs share instead of its columns.
    shared = {
        column: runs[0].value(column)
        for column in ("model", "recipe", "dataset")
        if len(runs) > 1 and len({run.value(column) for run in runs}) == 1
    }
    metrics = {run.figure for run in runs}
    metrics |= {"val_loss"} if "top1" in metrics else set()
    usual = [name for name in COLUMNS if name in metrics or name not in _METRICS]
    others = [column for column in usual if column not in shared]
    most = min(len(settings), MOST_SETTINGS)
    layouts = [[*usual, *settings[:most]]]
    layouts += [[*others, *settings[:count]] for count in range(most, -1, -1)]
    for columns in layouts:
        table = _table_of_runs(runs, columns, console.width)
        unlimited = console.options.update(max_width=10_000)
        if console.measure(table, options=unlimited).maximum <= console.width:
            break
    console.print(table)

    notes = []
    left_out = [f"{name} {value}" for name, value in shared.items() if name not in columns]
    if left_out:
        notes.append(f"All have {', '.join(left_out)}.")
    left_out = [path for path in settings if path not in columns]
    if left_out:
        notes.append(f"Also different: {', '.join(left_out)} (widen the terminal, or write --csv).")
    notes += [f"{run.run}: {run.problem}" for run in runs if run.problem]
    if notes:
        print("", *map(visible, notes), sep="\n")


def _table_of_runs(runs, columns, width):
    table = Table(box=None, pad_edge=False, collapse_padding=width < 100)
    widest = {"run": width // 3, "dataset": width // 5}
    for column in columns:
        is_setting = "." in column
        table.add_column(
            {"images_per_second": "images/s"}.get(column, column.replace(".", ".\n")),
            justify="right" if column in (*FORMS, "epochs") else "left",
            max_width=width // 5 if is_setting else widest.get(column),
            no_wrap=not is_setting and column not in widest,
            overflow="fold",
        )
    for run in runs:
        table.add_row(*(Text(visible(_cell_of_run(run, column))) for column in columns))
    return table


def _cell_of_run(run, column):
    value = run.value(column)
    if value is None:
        return "None" if column in run.settings else ""
    if column == "epochs":
        return f"{value}/{'?' if run.total_epochs is None else run.total_epochs}"
    return format(value, FORMS.get(column, "g" if isinstance(value, float) else ""))
