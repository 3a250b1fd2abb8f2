"""`pit-keras benchmark`: what models cost on this machine."""

import argparse
import time

from pit_keras.commands.arguments import (
    batch_size,
    image_size,
    models_matching,
    positive,
    write_output,
)
from pit_keras.config.model_names import DETECTOR_PREFIX
from pit_keras.errors import check_outputs, undone_at_the_end

# Spelt here and not taken from `measuring`, which imports Keras: a wrong option should not wait.
MEASURES = ("cost", "throughput", "latency", "training", "memory")


def add_arguments(command):
    from pit_keras.config.fields import PRECISION

    argument = command.add_argument
    argument("models", nargs="*", metavar="MODEL", help="or 'pit_*' (default: all classifiers)")
    default = ",".join(MEASURES)
    argument(
        "--measure", type=_measures, metavar="LIST", default=default, help="(default: %(default)s)"
    )
    argument(
        "--image_size", type=image_size, metavar="SIZE", help="192,256 (default: as published)"
    )
    argument(
        "--batch_size", type=batch_size, metavar="N", default=16, help="(default: %(default)s)"
    )
    argument("--precision", choices=PRECISION, default="float32", help="(default: %(default)s)")
    argument("--repeats", type=positive, default=15, help="timed calls (default: %(default)s)")
    argument(
        "--output", metavar="CSV", help="a table to write; rows that it has are not measured again"
    )
    argument("--markdown", metavar="FILE", help="also write the table as Markdown")


def _measures(text):
    names = text.split(",")
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"knows {','.join(MEASURES)}, not {unknown[0]!r}; separate several by commas"
        )
    return tuple(names)


def run(options):
    """Measures models one after the other; prints and writes a row for each."""
    check_outputs({"--output": options.output, "--markdown": options.markdown})
    names = _names(options.models)
    from pit_keras.measure import cost_table

    settings = ("image_size", "batch_size", "precision", "repeats")
    settings = {name: getattr(options, name) for name in settings}
    tasks = [cost_table.task_of(name, measures=options.measure, **settings) for name in names]
    known = {} if options.output is None else cost_table.read_rows(options.output)
    rows = []
    with undone_at_the_end():  # ends the process that measures too
        where = cost_table.machine(options.precision)
        print("{backend} on {device}, {threads} threads ({versions})".format(**where), flush=True)
        for number, task in enumerate(tasks, 1):
            row, words = _row(cost_table, task, where, known, options.output)
            rows.append(row)
            print(f"[{number}/{len(tasks)}] {task.model}  {words}", flush=True)
    if options.markdown is not None:
        table = cost_table.markdown(rows, options.measure)
        write_output(options.markdown, table)
    for path in (options.markdown, options.output):
        if path is not None:
            print(f"Written to {path}")
    failures = cost_table.failures(tasks, rows)
    if failures:
        raise ValueError(f"Not all could be measured: {failures}.")


def _row(cost_table, task, where, known, output):
    """One model's row, which joins the known ones, and the same in words."""
    key = cost_table.key_of(cost_table.settings_of(task, where))
    row = known.get(key)
    if row is not None and not cost_table.missing(task, row):
        return row, f"is in {output} already"
    start = time.perf_counter()
    row = known[key] = cost_table.measure(task, where, row)
    if output is not None:
        cost_table.write_rows(known.values(), output)
    columns = [column for name in task.measures for column in cost_table.MEASURES[name]]
    words = [f"{column}={row[column]}" for column in (*columns, "problem") if row[column] != ""]
    return row, f"{'  '.join(words)}  ({time.perf_counter() - start:.0f} s)"


def _names(patterns):
    """The models that any pattern matches; without one all classifiers.

    A detector's training step is not measured here.
    """
    if patterns:
        return list(dict.fromkeys(name for each in patterns for name in models_matching(each)))
    return [name for name in models_matching("*") if not name.startswith(DETECTOR_PREFIX)]
