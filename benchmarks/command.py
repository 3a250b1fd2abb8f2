"""Options of a benchmark, its models, and the CSV that it writes."""

import argparse
import csv
import functools
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# What `--small` makes of a model, by the beginning of its name.
_SMALL_MODELS = {
    "pit": {"depths": (1, 1, 1), "heads": (1, 2, 4), "head_dim": 4},
    "vit": {"depth": 1, "head_dim": 4},
    "resnet": {"depths": (1, 1, 1, 1), "base_width": 4},
}
_SMALL_DETECTOR = {
    "encoder_layers": 1, "decoder_layers": 1, "hidden_width": 16, "hidden_heads": 2,
    "feed_forward": 16,
}  # fmt: skip


def parse(description, arguments, small, **defaults):
    """The options of a benchmark, and `small`, as attributes.

    Args:
        description: The script's docstring.
        arguments: The command line's, without the program's name; None for the process's own.
        small: `{option: default}` with `--small`.
        defaults: Defaults of the options, which give their types. A tuple is a list with commas.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        description=description, formatter_class=formatter, allow_abbrev=False
    )
    parser.add_argument("--small", action="store_true", help="smallest size, as in the tests")
    for name, default in defaults.items():
        many = default if isinstance(default, tuple) else (default,)
        kind = type(many[0]) if many == (default,) else functools.partial(_read, type(many[0]))
        shown = f"default: {','.join(map(str, many))}"
        parser.add_argument(f"--{name}", type=kind, default=default, help=shown)
    if "--small" in (sys.argv[1:] if arguments is None else arguments):
        parser.set_defaults(**small)
    return parser.parse_args(arguments)


def _read(kind, text):
    return tuple(map(kind, text.split(",")))


def small_fields(name):
    """Overrides of `create_model` for the smallest model of a name."""
    backbone = name.removeprefix("detr_")
    fields = next(f for start, f in _SMALL_MODELS.items() if backbone.startswith(start))
    return fields if name == backbone else {**fields, **_SMALL_DETECTOR}


def new_model(name, options, **settings):
    """A model of `create_model`, square by `options.image_size` unless `input_shape` is given."""
    from pit_keras import create_model

    if "input_shape" not in settings:
        settings["input_shape"] = (options.image_size, options.image_size, 3)
    return create_model(name, **settings, **(small_fields(name) if options.small else {}))


def write_rows(rows, path):
    """Prints dictionaries of the same keys, and writes them as a CSV; makes its folder."""
    for row in rows:
        print(*(f"{key}={value}" for key, value in row.items()), sep="  ")
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"Written to {path}", flush=True)
