"""Says how long it will take to train on a folder of images, on this machine.

    pit-keras plan FOLDER [--models=pit_ti,pit_s] [--epochs=10]

Begins the training of each model for about a minute and counts on. It prints a table, the commands
that train, and the accuracy that folders of this size reached. Nothing is kept.
"""

import os
import shlex
import sys

from absl import flags
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pit_keras.commands import training_flags
from pit_keras.commands.absl_flags import flag_lines, offer_flags, parser_with_help
from pit_keras.commands.arguments import check_data_set, models_matching, write_output
from pit_keras.errors import check_outputs, exit_with_one_sentence, undone_at_the_end, visible
from pit_keras.runs.run_folder import csv_text

FLAGS = flags.FLAGS
OWN = ("models", "csv")
HEADINGS = {
    "model": "model",
    "image_size": "size",
    "batch_size": "batch",
    "memory": "memory",
    "images_per_second": "images/s",
    "epochs": "epochs",
    "time": "time",
    "range": "from - to",
}


def define(values):
    into = {"flag_values": values}
    text = "Names or patterns of models, with commas between."
    flags.DEFINE_list("models", ["pit_ti", "pit_xs", "pit_s"], text, **into)
    flags.DEFINE_string("csv", None, "Also write the table to this file.", **into)


PLAN = training_flags.TRAIN._replace(
    recipes=("photos", *(name for name in training_flags.TRAIN.recipes if name != "photos")),
    # What the folder and --models say, and what is no part of a plan.
    withheld=(
        *("model", "dataset", "data_dir", "manual_dir", "output_dir", "workers", "worker"),
        *("profile", "preview", "save_on_signal"),
    ),
    define=define,
)


def parse_defined(argv, values=FLAGS):
    """Defines the flags and parses a command line; the folder becomes --dataset."""
    values.set_gnu_getopt(True)  # flags may come after the folder
    _, *folders = training_flags.parse_training_flags(argv, values, PLAN)
    if len(folders) != 1:
        raise flags.Error("Give one folder of images: pit-keras plan FOLDER.")
    if not values.models:
        raise flags.Error("--models must name at least one model.")
    for name in PLAN.withheld:
        if values[name].present:
            raise flags.Error(f"--{name} has no meaning for a plan; --help lists its flags.")
    values.dataset = f"folder:{folders[0].removeprefix('folder:')}"


def help_text():
    lines = flag_lines(_shown_flags())
    return "\n".join([__doc__, *lines, "", "The other flags of `pit-keras train` work too."])


def _shown_flags():
    shown = ("models", "recipe", "image_size", "batch_size", "epochs", "precision", "csv")
    known = {flag.name: flag for flag in training_flags.shown_flags(PLAN)}
    return [known[name] for name in shown]


parse = parser_with_help(help_text, parse_defined)


def add_arguments(command):
    """Adds the flags to an argparse parser, for a shell's completion."""
    command.add_argument("folder")
    offer_flags(command, _shown_flags())


def run(arguments):
    """Measures the models one after the other, and prints the table and what belongs to it."""
    with exit_with_one_sentence():
        check_outputs({"--csv": FLAGS.csv})
        configs, sizes = suited(configs_of(FLAGS), FLAGS)
    with undone_at_the_end():  # ends the process that measures too
        rows, problems = measured(configs, sizes)
    if rows:
        print_rows(rows)
        print_commands(rows)
        print_accuracy(sizes["train"])
    with exit_with_one_sentence():
        if rows and FLAGS.csv is not None:
            write_output(FLAGS.csv, csv_text(rows))
            print(f"Written to {FLAGS.csv}", file=sys.stderr)
        if problems:
            listed = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
            raise ValueError(f"Not all could be measured. {listed}")


def configs_of(values):
    """The configurations of the models that parsed flags name."""
    check_data_set(values.dataset)
    names = dict.fromkeys(name for each in values.models for name in models_matching(each))
    configs = [training_flags.config_from_flags(values, name) for name in names]
    if configs[0].training.distribute == "multi_worker":
        raise ValueError("--distribute of a plan must be none or mirrored: it is for one machine.")
    return configs


def suited(configs, values):
    """The configurations that suit the images, and the numbers of images of the splits.

    Raises a ValueError where training would.
    """
    import tensorflow as tf

    from pit_keras.training.assembly import check_weights, weights_in_reach
    from pit_keras.training.tasks import open_source_of, task_of

    tf.config.set_visible_devices([], "GPU")  # the processes that measure need all its memory
    source = open_source_of(configs[0])
    if configs[0].recipe == "photos":
        data = {"images": source.sizes["train"]}
        for number, name in enumerate(config.model.name for config in configs):
            if training_flags.given_weights(values) is None:
                data["weights"] = weights_in_reach(name)
            configs[number] = training_flags.config_from_flags(values, name, **data)
    for config in configs:
        check_weights(config)
        task_of(config, source).check_train_batches(config.training.images_of_update)
    return configs, source.sizes


def measured(configs, sizes):
    """The rows of the table, and why others are missing, {model: problem}."""
    from pit_keras.measure.training_plan import plan_row, try_run

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    is_shown, rows, problems = console.is_terminal, [], {}
    with Progress(*columns, console=console, transient=True, disable=not is_shown) as bar:
        task = bar.add_task("", total=len(configs))
        for number, config in enumerate(configs):
            name = config.model.name

            def show(what, share, name=name, number=number):
                bar.update(task, description=f"{name}: {what}", completed=number + share)

            try:
                rows.append(plan_row(config, sizes, try_run(config, show)))
            except ValueError as error:
                problems[name] = str(error)
    return rows, problems


def print_rows(rows):
    """The table, and what it was measured on."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for heading in HEADINGS.values():
        justify = "left" if heading == "model" else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for row in rows:
        low, high = in_words(row["hours_from"]), in_words(row["hours_to"])
        shown = {
            **row,
            "memory": f"{row['memory_gib']} GiB" if row["memory_gib"] else "",
            "time": in_words(row["hours"]),
            "range": f"{low.removesuffix(high[high.index(' ') :])} - {high}",
        }
        table.add_row(*(str(shown[name]) for name in HEADINGS))
    Console().print(table)
    print(
        "\nMeasured with the recipe {recipe}, {train_images:,} training and {val_images:,} "
        "validation images\non {machine}. From - to: if the quickest, or the slowest,\n"
        "fifth of the measured steps went on. Other programs change it.".format(**rows[0])
    )


def in_words(hours):
    """A time as people say it."""
    for unit, seconds, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        number = 3600 * hours / seconds
        if number < most:
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{hours / 24:.1f} days"


def print_commands(rows):
    """The commands that train what the rows say."""
    print("\nTo train one of them:")
    for row in rows:
        print(f"    {visible(shlex.join(command_of(row['model'])))}")


def command_of(model, values=FLAGS):
    """The command that trains a model as the flags say, as a list of words."""
    decided = {"recipe", *OWN, *PLAN.withheld}
    typed = [values[name] for name in values if values[name].present and name not in decided]
    given = [flag.serialize() for flag in typed]
    folder = os.path.basename(os.path.abspath(values.dataset.removeprefix("folder:")))
    return [
        *("pit-keras", "train", f"--recipe={values.recipe}", f"--model={model}"),
        *(f"--dataset={values.dataset}", *given, f"--output_dir=runs/{folder}_{model}"),
    ]


def print_accuracy(images):
    """What folders of about so many images reached in runs of this project."""
    from pit_keras.measure.training_plan import results_near

    rows = results_near(images)
    if not rows:
        print("\nNo run of this project with about as many images is published yet.")
        return
    print("\nTop-1 that folders of about as many images reached in this project's own runs:")
    form = "    {top1:.1%} from {images:,} images of {data_set}; {model}, {rest}"
    units = {"weights": "weights {}", "recipe": "recipe {}", "epochs": "{} epochs"}
    units |= {"hours": "{} h", "processor": "{}"}
    for row in rows:
        rest = ", ".join(unit.format(row[name]) for name, unit in units.items() if row[name])
        numbers = {"top1": float(row["top1"]), "images": int(row["images"])}
        print(form.format(**{**row, **numbers, "rest": rest}))
