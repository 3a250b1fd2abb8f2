"""Flags of the training scripts: a recipe, the few values that everyone sets, and every other one.

flags = a recipe's Config <- named flags (--epochs=10) <- overrides (--config.data.flip=false)
"""

import difflib
import re
import sys

from absl import flags
from ml_collections import config_flags

from pit_keras.training.config import (
    DISTRIBUTE,
    PRECISION,
    Config,
    field_paths,
    get_field,
    set_field,
    validate,
)
from pit_keras.training.recipes import RECIPES, recipe

# Named flags and the configuration field that each one sets.
_FIELDS = {
    "recipe": "recipe",
    "model": "model.name",
    "dataset": "data.dataset",
    "data_dir": "data.data_dir",
    "image_size": "data.image_size",
    "batch_size": "training.batch_size",
    "epochs": "training.epochs",
    "seed": "training.seed",
    "distribute": "training.distribute",
    "precision": "training.precision",
}


def parse_training_flags(argv, values=flags.FLAGS):
    """Defines and parses the flags of `train/train.py`.

    Args:
        argv: The command line, the program's name first.
        values: Where the flags are defined, by default among those of the process.

    Returns:
        What is left of the command line.

    Raises:
        absl.flags.Error: In one sentence, for an unknown or ill-typed flag or override.
    """
    _check_overrides(argv)
    _define_flags(argv, values)
    for name in ("output_dir", "recipe", "model", "config", *_FIELDS):
        values.register_key_flag_for_module(argv[0], values[name])  # for --help to show it
    return values(argv)


def parse_or_exit(argv):
    """`parse_training_flags` for `absl.app.run`: a mistake ends the program with one sentence."""
    try:
        return parse_training_flags(argv)
    except flags.Error as error:
        sys.exit(f"error: {error}")


def _check_overrides(argv):
    """The library's own answer to an unknown field is a bare KeyError."""
    known = field_paths(Config())
    for argument in argv[1:]:
        path = re.sub(r"^--?(no)?config\.|=.*", "", argument, flags=re.DOTALL)
        if re.match(r"--?(no)?config\.", argument) and path not in known:
            near = difflib.get_close_matches(path, known, n=3)
            hint = (
                f"did you mean {' or '.join(near)}?" if near else f"fields are {', '.join(known)}."
            )
            raise flags.Error(f"There is no configuration field {path!r}; {hint}")


def _define_flags(argv, values):
    into = {"flag_values": values}
    flags.DEFINE_enum("recipe", "vanilla", list(RECIPES), "Training setting of the paper.", **into)
    flags.DEFINE_string("model", "pit_s", "A name of `pit-keras models`.", **into)
    flags.DEFINE_string("output_dir", None, "Run folder, made if need be.", required=True, **into)
    flags.DEFINE_string(
        "dataset", None, "digits, folder:PATH or a TFDS name.", required=True, **into
    )
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data sets.", **into)
    flags.DEFINE_list("image_size", None, "Side in pixels, or height,width.", **into)
    flags.DEFINE_integer("batch_size", None, "Images of one step, over all devices.", **into)
    flags.DEFINE_integer("epochs", None, "Length of the training.", **into)
    flags.DEFINE_integer("seed", None, "Seed of every random decision.", **into)
    flags.DEFINE_enum("distribute", None, DISTRIBUTE, "Devices to train on.", **into)
    flags.DEFINE_enum("precision", None, PRECISION, "Precision of the activations.", **into)
    # The library defines the overrides that it finds in argv.
    config_flags.DEFINE_config_dataclass(
        "config", Config(), "Any value of the recipe.", sys_argv=argv, **into
    )


def config_from_flags(values):
    """The configuration that the parsed flags describe.

    Args:
        values: `absl.flags.FLAGS` after parsing.

    Raises:
        ValueError: For a value out of range, or one that is set twice to different values.
    """
    config = recipe(values.recipe, values.model)
    named = {path: getattr(values, flag) for flag, path in _FIELDS.items()}
    if values.image_size is not None:
        named["data.image_size"] = _image_size(values.image_size)
    named = {path: value for path, value in named.items() if value is not None}
    overrides = config_flags.get_override_values(values["config"])
    for path, value in overrides.items():
        if path in named and named[path] != value:
            raise ValueError(f"{path} is set twice, to {named[path]!r} and to {value!r}.")
    for path, value in {**named, **overrides}.items():
        _check_form(path, value, get_field(config, path))
        set_field(config, path, value)
    validate(config)
    return config


def _image_size(sides):
    if len(sides) not in (1, 2) or not all(side.isdigit() for side in sides):
        raise ValueError(
            f"--image_size must be one side or height,width in pixels; got {','.join(sides)!r}."
        )
    return tuple(int(side) for side in (*sides, *sides)[:2])


def _check_form(path, value, default):
    """Tuples are typed no further by the flags than as tuples."""
    if isinstance(default, tuple) and (
        not isinstance(value, tuple)
        or len(value) != len(default)
        or not all(isinstance(item, (int, float)) for item in value)
    ):
        raise ValueError(f"{path} must be {len(default)} numbers such as {default}, got {value!r}.")
