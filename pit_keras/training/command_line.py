"""Flags of the training scripts: a recipe, the few values that everyone sets, and every other one.

    flags = a recipe's Config <- named flags (--epochs=10) <- overrides (--config.data.flip=false)
"""

import difflib

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


def define_training_flags():
    """Defines the flags of `train/train.py`."""
    flags.DEFINE_enum("recipe", "vanilla", list(RECIPES), "Training setting of the paper.")
    flags.DEFINE_string("model", "pit_s", "A name of `pit-keras models`.")
    flags.DEFINE_string("output_dir", None, "Run folder, made if need be.", required=True)
    flags.DEFINE_string("dataset", None, "digits, folder:PATH or a TFDS name.", required=True)
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data sets.")
    flags.DEFINE_list("image_size", None, "Side in pixels, or height,width.")
    flags.DEFINE_integer("batch_size", None, "Images of one step, over all devices.")
    flags.DEFINE_integer("epochs", None, "Length of the training.")
    flags.DEFINE_integer("seed", None, "Seed of every random decision.")
    flags.DEFINE_enum("distribute", None, DISTRIBUTE, "Devices to train on.")
    flags.DEFINE_enum("precision", None, PRECISION, "Precision of activations and gradients.")
    config_flags.DEFINE_config_dataclass("config", Config(), "Any value of the recipe.")


def parse_flags(argv):
    """Parses the command line; for `absl.app.run(main, flags_parser=parse_flags)`.

    Raises:
        absl.flags.Error: In one sentence, for an unknown or ill-typed flag or override.
    """
    known = field_paths(Config())
    for argument in argv[1:]:
        name = argument.lstrip("-").split("=")[0]
        path = name.removeprefix("noconfig.").removeprefix("config.")
        if path != name and path not in known:
            near = difflib.get_close_matches(path, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"fields are {', '.join(known)}."
            raise flags.Error(f"There is no configuration field {path!r}; {hint}")
    return flags.FLAGS(argv)


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
        raise ValueError(
            f"{path} must be {len(default)} numbers such as {default}, got {value!r}."
        )
