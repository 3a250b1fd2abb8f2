"""Flags of the commands that train: a recipe, short flags, and one for every field.

A recipe's Config <- short flags (--epochs=10) <- every field (--config.data.flip=false)
"""

import ast
import contextlib
import re
import typing
from collections.abc import Callable
from typing import NamedTuple

from absl import flags

from pit_keras.commands.absl_flags import (
    flag_lines,
    image_size_of,
    offer_flags,
    parse_flags,
    parser_with_help,
)
from pit_keras.config.fields import (
    CLASSIFIERS_OWN,
    DETECTORS_OWN,
    Config,
    FieldError,
    field_paths,
    field_type,
    get_field,
    set_field,
    validate,
)
from pit_keras.config.model_names import check_model_name
from pit_keras.config.recipes import CLASSIFICATION_RECIPES, DETECTION_RECIPES, recipe


class Script(NamedTuple):
    """How the flags of the commands that train differ."""

    recipes: tuple[str, ...]  # the default first
    model: str  # the default
    dataset: str  # in words
    image_size: str  # in words
    withheld: tuple[str, ...] = ()  # flags and fields that have no meaning for the command
    withheld_fields: tuple[str, ...] = ()
    define: Callable = lambda values: None  # defines flags of its own


def _define_folds(values):
    text = "Train so many times, each on another part of the folder, for a mean and its deviation."
    flags.DEFINE_integer("folds", None, text, lower_bound=2, flag_values=values)


TRAIN = Script(
    CLASSIFICATION_RECIPES,
    "pit_s",
    "digits, folder:PATH or a TFDS name",
    "Side in pixels, or height,width",
    withheld_fields=DETECTORS_OWN,
    define=_define_folds,
)
DETECT = Script(
    DETECTION_RECIPES,
    "detr_pit_s",
    "coco:PATH or a TFDS name such as coco/2017",
    "Largest short and largest long side in pixels",
    ("teacher",),
    CLASSIFIERS_OWN,
)

# Short flags: the field that each one sets, and its help ("": see `_define_flags`).
_FIELDS = {
    "recipe": ("recipe", ""),
    "model": ("model.name", ""),
    "weights": ("model.weights", "What to start from: imagenet, none, or a weights file."),
    "teacher": ("distillation.teacher", "For --recipe=distill: a model's name or a run folder."),
    "dataset": ("data.dataset", ""),
    "data_dir": ("data.data_dir", "Where TFDS keeps its data sets."),
    "image_size": ("data.image_size", ""),
    "batch_size": ("training.batch_size", "Images of a step, over all devices."),
    "epochs": ("training.epochs", "Length of the training."),
    "seed": ("training.seed", "Seed of every random decision."),
    "distribute": ("training.distribute", "Devices: none (one), mirrored or multi_worker."),
    "precision": ("training.precision", "float32, mixed_bfloat16 or mixed_float16."),
    "jit": ("training.jit", "Whether XLA compiles the step: on, off or auto (as measured)."),
    "accumulate": ("training.accumulate", "Batches whose gradients are summed for one update."),
    "checkpoint_every_steps": ("training.checkpoint_every_steps", "Updates between saves."),
    "checkpoint_every_minutes": ("training.checkpoint_every_minutes", "Minutes between saves."),
}
# Flags that say where and how a run is done, not what it is: they are not part of its Config.
_CIRCUMSTANCES = ("workers", "worker", "manual_dir", "profile", "preview", "save_on_signal")
_REQUIRED = ("dataset", "output_dir")


def _define_flags(values, script):
    into, recipes = {"flag_values": values}, script.recipes
    script.define(values)
    flags.DEFINE_enum("recipe", recipes[0], recipes, "Training setting of the paper.", **into)
    flags.DEFINE_string("model", script.model, "A name of `pit-keras models`.", **into)
    flags.DEFINE_string("dataset", None, f"{script.dataset}.", **into)
    flags.DEFINE_string("image_size", None, f"{script.image_size}.", **into)
    for name, text in {
        **{name: text for name, (_, text) in _FIELDS.items() if text},
        "output_dir": "Run folder, made if need be.",
        "manual_dir": "Files downloaded by hand, to prepare a TFDS data set from (imagenet2012).",
        "profile": "START:STOP, steps of the run to profile for TensorBoard.",
    }.items():
        flags.DEFINE_string(name, None, text, **into)
    text = "For --distribute=multi_worker: HOST:PORT of every worker (default: TF_CONFIG's)."
    flags.DEFINE_list("workers", None, text, **into)
    flags.DEFINE_integer("worker", None, "This worker's number in --workers, from 0.", **into)
    text = "Draw so many training batches to preview.png in the run folder, and stop."
    flags.DEFINE_integer("preview", None, text, lower_bound=1, upper_bound=20, **into)
    text = "A signal that saves and ends the run as Ctrl-C does, such as SLURM's warning."
    flags.DEFINE_enum("save_on_signal", None, ["USR1", "USR2"], text, **into)
    for path in field_paths(Config()):
        define = flags.DEFINE_bool if bool in _types(path) else flags.DEFINE_string
        define(f"config.{path}", None, "A field of the recipe.", allow_overwrite=False, **into)


def _types(path):
    """The type of a field and the parts of it: `int` and None, of a choice the choices."""
    form = field_type(path)
    return {form, *typing.get_args(form)}


def parse_training_flags(argv, values=flags.FLAGS, script=TRAIN):
    """Defines the flags of a command and parses a command line; returns what is left."""
    _define_flags(values, script)
    rest = parse_flags(argv, values)
    required = [name for name in _REQUIRED if name not in script.withheld]
    missing = [f"--{name}" for name in required if not values[name].value]
    if missing:
        raise flags.Error(f"{' and '.join(missing)} must be given; --help lists all flags.")
    return rest


def training_parser(script, description):
    """The `flags_parser` of a command that trains."""

    def parse(argv):
        rest = parse_training_flags(argv, script=script)
        if rest[1:]:
            raise flags.Error(f"{rest[1]!r} is no flag; flags begin with two dashes.")
        return rest

    return parser_with_help(lambda: help_text(description, script), parse)


def help_text(description, script=TRAIN):
    """A command's description, its flags, and the paths of its fields with the recipe's values."""
    usual = script.recipes[0]
    defaults = recipe(usual, script.model)
    lines = [description.strip(), "", *flag_lines(shown_flags(script), _REQUIRED)]
    lines += ["", f"Fields, --config.PATH=VALUE, with their values in the recipe {usual}:"]
    lines += [f"  {path} = {get_field(defaults, path)!r}" for path in _shown_fields(script)]
    return "\n".join(lines)


def add_arguments(command, script):
    """Adds the flags to an argparse parser, for a shell's completion."""
    offer_flags(command, shown_flags(script))
    for path in _shown_fields(script):
        command.add_argument(f"--config.{path}")


def shown_flags(script):
    values = flags.FlagValues()
    _define_flags(values, script)
    usual = {"output_dir", *_FIELDS, *_CIRCUMSTANCES}
    own = [name for name in values if name not in usual and not name.startswith("config.")]
    names = (*own, "output_dir", *_FIELDS, *_CIRCUMSTANCES)
    return [values[name] for name in names if name not in script.withheld]


def _shown_fields(script):
    return [path for path in field_paths(Config()) if path not in script.withheld_fields]


def profiled_steps(text):
    """The steps that --profile=START:STOP names, (start, stop); None without it."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"--profile must be START:STOP, such as 10:15; got {text!r}.")
    return int(match[1]), int(match[2])


def config_from_flags(values, model=None, **data):
    """The configuration that parsed flags describe, of their model or another one.

    A wrong value, or a field that is set twice to different values, is a ValueError. `data` are
    what the recipe `photos` follows.
    """
    given = {path: values[flag].value for flag, (path, _) in _FIELDS.items()}
    given["model.name"] = model or values.model
    weights = given_weights(values)
    if weights is not None and values.recipe == "photos":
        data["weights"] = _value("model.weights", weights)
    config = recipe(values.recipe, given["model.name"], **data)
    _check_task(config)
    short = {path: _value(path, text) for path, text in given.items() if text is not None}
    if values.image_size is not None:
        short["data.image_size"] = image_size_of(values.image_size.split(","))
    given = {path: values[f"config.{path}"].value for path in field_paths(config)}
    fields = {path: _value(path, text) for path, text in given.items() if text is not None}
    for path, value in fields.items():
        if short.get(path, value) != value:
            raise ValueError(f"{path} is set twice, to {short[path]!r} and to {value!r}.")
    given = {**short, **fields}
    epochs, own = given.get("training.epochs"), config.training.epochs
    if isinstance(epochs, int) and 0 < epochs < own:  # the warm-up keeps its share of them
        config.optimizer.warmup_epochs *= epochs / own
    for path, value in given.items():
        set_field(config, path, value)
    try:
        return validate(config)
    except FieldError as error:
        flag = {path: flag for flag, (path, _) in _FIELDS.items()}.get(error.path)
        raise ValueError(f"--{flag or f'config.{error.path}'} {error.problem}") from None


def keep_warmup(values, config, folder):
    """Takes over the warm-up of a run of an earlier version, which did not follow --epochs."""
    path = "optimizer.warmup_epochs"
    if values[f"config.{path}"].value is None:
        with contextlib.suppress(ValueError, OSError):  # which the trainer explains
            stored = get_field(folder.read_config(), path)
            if stored == get_field(recipe(config.recipe, config.model.name), path):
                set_field(config, path, stored)


def given_weights(values):
    """What was typed for the weights to start from; None for the recipe's own."""
    return values.weights or values["config.model.weights"].value


def _value(path, text):
    """A flag's text as the field's value: Python's literal, unless the field holds text."""
    if path == "model.weights" and text == "none":
        return None
    types = _types(path)
    if types & {bool, str} or any(isinstance(each, str) for each in types):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # which the field refuses


def _check_task(config):
    is_detector, model = config.model.is_detector, config.model.name
    check_model_name(model)
    if is_detector != (config.recipe in DETECTION_RECIPES):
        kind, command = ("detector", "detect") if is_detector else ("classifier", "train")
        raise ValueError(f"--model={model} is a {kind}, which is trained with pit-keras {command}.")
