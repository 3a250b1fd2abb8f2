"""`pit-keras benchmark`: what models cost on this machine."""

import argparse
import pathlib
import time

from pit_keras.commands.arguments import add_command, image_size, positive
from pit_keras.errors import check_can_write, check_different_files, sigterm_as_ctrl_c


def add(commands):
    from pit_keras.config.fields import PRECISION

    command = add_command(commands, "benchmark", run, "measure what models cost on this machine")
    command.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="names, or patterns such as 'pit_*' (default: all classifiers)",
    )
    command.add_argument(
        "--measure",
        type=_measures,
        metavar="LIST",
        default="cost,throughput,latency,training,memory",
        help="what to measure (default: %(default)s)",
    )
    command.add_argument(
        "--image_size",
        type=image_size,
        metavar="SIZE",
        help="such as 224 or 192,256 (default: what each model was published with)",
    )
    command.add_argument(
        "--batch_size", type=positive, metavar="N", default=16, help="(default: %(default)s)"
    )
    command.add_argument(
        "--precision", choices=PRECISION, default="float32", help="(default: %(default)s)"
    )
    command.add_argument(
        "--repeats",
        type=positive,
        metavar="N",
        default=15,
        help="timed calls, of which the median counts (default: %(default)s)",
    )
    command.add_argument(
        "--output",
        metavar="CSV",
        help="a table to write after each model; rows that it has already are not measured again",
    )
    command.add_argument("--markdown", metavar="FILE", help="also write the table as Markdown")


def _measures(text):
    from pit_keras.measure.measuring import MEASURES

    names = text.split(",")
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"knows {','.join(MEASURES)}, not {unknown[0]!r}; separate several by commas"
        )
    return tuple(names)


def run(options):
    """Measures models one after the other, printing and writing a row for each.

    Raises:
        ValueError: In the end, if something could not be measured; before, if the options are bad.
    """
    from pit_keras.measure import cost_table as benchmark

    outputs = {"--output": options.output, "--markdown": options.markdown}
    for option, path in outputs.items():
        if path is not None:
            check_can_write(path, option)
    check_different_files(outputs)
    tasks = [
        benchmark.task_of(
            name,
            measures=options.measure,
            image_size=options.image_size,
            batch_size=options.batch_size,
            precision=options.precision,
            repeats=options.repeats,
        )
        for name in _names(options.models)
    ]
    known = {} if options.output is None else benchmark.read_rows(options.output)
    with sigterm_as_ctrl_c():  # ends the process that measures too
        rows = _measured(benchmark, tasks, known, options)
    if options.markdown is not None:
        table = benchmark.markdown(rows, options.measure)
        pathlib.Path(options.markdown).write_text(table, encoding="utf-8")
        print(f"Written to {options.markdown}")
    if options.output is not None:
        print(f"Written to {options.output}")
    failures = benchmark.failures(tasks, rows)
    if failures:
        raise ValueError(f"Not all could be measured: {failures}.")


def _measured(benchmark, tasks, known, options):
    """A row for each task, in order."""
    where = benchmark.machine(options.precision)
    print("{backend} on {device}, {threads} threads ({versions})".format(**where), flush=True)
    rows = []
    for number, task in enumerate(tasks, 1):
        row, said = _row(benchmark, task, where, known, options.output)
        rows.append(row)
        print(f"[{number}/{len(tasks)}] {task.model}  {said}", flush=True)
    return rows


def _row(benchmark, task, where, known, output):
    """One model's row, which joins the known ones, and what is said of it."""
    key = benchmark.key_of(benchmark.settings_of(task, where))
    row = known.get(key)
    if row is not None and not benchmark.missing(task, row):
        return row, f"is in {output} already"
    start = time.perf_counter()
    row = known[key] = benchmark.measure(task, where, row)
    if output is not None:
        benchmark.write_rows(known.values(), output)
    columns = [column for name in task.measures for column in benchmark.MEASURES[name]]
    said = [f"{column}={row[column]}" for column in columns if row[column] != ""]
    said += [f"problem={row['problem']}"] if row["problem"] else []
    return row, f"{'  '.join(said)}  ({time.perf_counter() - start:.0f} s)"


def _names(patterns):
    """The models that any of the patterns matches, in the order of the patterns.

    Without a pattern they are all classifiers: a detector's training step is not measured here.
    """
    from pit_keras.models import list_models, variant_of
    from pit_keras.models.detr import Detr

    if not patterns:
        return [name for name in list_models() if not isinstance(variant_of(name), Detr)]
    names = []
    for pattern in patterns:
        found = list_models(pattern)
        if not found:
            raise ValueError(
                f"No model matches {pattern!r}; models are {', '.join(list_models())}."
            )
        names += [name for name in found if name not in names]
    return names
