"""Flags of the training scripts: a recipe, the few values that everyone sets, and every other one.

flags = a recipe's Config <- named flags (--epochs=10) <- overrides (--config.data.flip=false)
"""

import dataclasses
import difflib
import re
import sys
import textwrap

from absl import flags
from ml_collections import config_flags

from pit_keras.config.fields import (
    DISTRIBUTE,
    JIT,
    PRECISION,
    Config,
    FieldError,
    field_paths,
    form_of,
    get_field,
    set_field,
    validate,
)
from pit_keras.config.recipes import CLASSIFICATION_RECIPES, DETECTION_RECIPES, recipe


@dataclasses.dataclass(frozen=True)
class Script:
    """What the flags of `train/train.py` and of `train/detect.py` differ in.

    Attributes:
        recipes: Names of its recipes, the default first.
        model: Name of the default model.
        dataset: What can be given as a data set.
        withheld: Flags of the other that this one has no use for.
    """

    recipes: tuple[str, ...]
    model: str
    dataset: str
    withheld: tuple[str, ...] = ()


TRAIN = Script(CLASSIFICATION_RECIPES, "pit_s", "digits, folder:PATH or a TFDS name")
DETECT = Script(
    DETECTION_RECIPES, "detr_pit_s", "coco:PATH or a TFDS name such as coco/2017", ("teacher",)
)

# Named flags and the configuration field that each one sets.
_FIELDS = {
    "recipe": "recipe",
    "model": "model.name",
    "weights": "model.weights",
    "teacher": "distillation.teacher",
    "dataset": "data.dataset",
    "data_dir": "data.data_dir",
    "image_size": "data.image_size",
    "batch_size": "training.batch_size",
    "epochs": "training.epochs",
    "seed": "training.seed",
    "distribute": "training.distribute",
    "precision": "training.precision",
    "jit": "training.jit",
    "accumulate": "training.accumulate",
    "checkpoint_every_steps": "training.checkpoint_every_steps",
    "checkpoint_every_minutes": "training.checkpoint_every_minutes",
}
# Flags that say where and how a run is done, not what it is: they are not part of its Config.
_CIRCUMSTANCES = ("workers", "worker", "manual_dir", "profile", "preview")
_REQUIRED = ("dataset", "output_dir")
_MOST_PREVIEWED = 20
_HELP = ("-h", "-help", "--help", "--helpshort", "--helpfull")


def parse_training_flags(argv, values=flags.FLAGS, script=TRAIN):
    """Defines and parses the flags of a training script.

    Args:
        argv: The command line, the program's name first.
        values: Where the flags are defined, by default among those of the process.
        script: Whose flags they are.

    Returns:
        What is left of the command line.

    Raises:
        absl.flags.Error: In one sentence, for an unknown or ill-typed flag or override.
    """
    _check_overrides(argv)
    _define_flags(argv, values, script)
    try:
        rest = values(argv)
    except flags.IllegalFlagValueError as error:
        raise flags.Error(_in_own_words(str(error))) from None
    for name in script.withheld:
        if values[name].value is not None:
            raise flags.Error(f"--{name} is a flag of train/train.py; a detector has no {name}.")
    if values.preview is not None and not 1 <= values.preview <= _MOST_PREVIEWED:
        raise flags.Error(_preview_error(values.preview))
    profiled_steps(values)
    missing = [f"--{name}" for name in _REQUIRED if not values[name].value]
    if missing:
        raise flags.Error(f"{' and '.join(missing)} must be given; --help lists all flags.")
    return rest


def parse_or_exit(argv, own=(), withheld=(), script=TRAIN):
    """`parse_training_flags` for `absl.app.run`: a mistake ends the program with one sentence, and
    a request for help with the list of flags.

    Args:
        argv: The command line, the program's name first.
        own: Names of flags that this program has beside those of `train/train.py`.
        withheld: Names of flags of `train/train.py` that it has no use for.
        script: Whose flags they are.
    """
    if set(argv[1:]) & set(_HELP):
        own_flags = [flags.FLAGS[name] for name in own]
        print(help_text(sys.modules["__main__"].__doc__ or "", own_flags, withheld, script))
        sys.exit(0)
    try:
        return parse_training_flags(argv, script=script)
    except flags.Error as error:
        sys.exit(f"error: {error}")


def help_text(description, own_flags=(), withheld=(), script=TRAIN):
    """What `--help` prints: a program's description, its flags, and the paths of all overrides.

    Args:
        description: The program's docstring.
        own_flags: Flags that this program has beside those of `train/train.py`.
        withheld: Names of those that it has no use for.
        script: Whose flags they are.
    """
    values, withheld = flags.FlagValues(), (*withheld, *script.withheld)
    _define_flags(["train.py"], values, script)
    lines = [description.strip(), "", "Flags:"]
    lines += [_flag_help(flag.name, flag) for flag in own_flags]
    names = [name for name in ("output_dir", *_FIELDS, *_CIRCUMSTANCES) if name not in withheld]
    lines += [_flag_help(name, values[name]) for name in names]
    usual, model = script.recipes[0], script.model
    lines += ["", f"Overrides, --config.PATH=VALUE, with their values in the recipe {usual}:"]
    defaults = recipe(usual, model)
    lines += [f"  {path} = {get_field(defaults, path)!r}" for path in field_paths(defaults)]
    return "\n".join(lines)


def _flag_help(name, flag):
    note = f"default {flag.default}" if flag.default is not None else None
    note = "required" if name in _REQUIRED else note
    text = f"{flag.help} ({note})" if note else flag.help
    lines = textwrap.wrap(text, 78)
    return textwrap.indent("\n".join([f"--{name}", *(f"    {line}" for line in lines)]), "  ")


def _in_own_words(message):
    """The parsers' message on an ill-typed value is theirs; the field knows what it should be."""
    match = re.match(r"flag --(\S+?)=(.*?): ", message, flags=re.DOTALL)
    if match and match[1] == "preview":
        return _preview_error(match[2])
    if match and match[1] == "worker":
        return f"--worker must be this worker's number in --workers, from 0; got {match[2]!r}."
    path = match and _FIELDS.get(match[1], match[1].removeprefix("config."))
    if path not in field_paths(Config()) or form_of(path) == "str":
        return message
    return f"--{match[1]} must be {form_of(path)}; got {match[2]!r}."


def profiled_steps(values):
    """The steps that --profile=START:STOP names, (start, stop); None without it.

    Raises:
        absl.flags.Error: If it is not of this form.
    """
    text = values.profile
    if text is None:
        return None
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise flags.Error(
            "--profile must be START:STOP, two step numbers of which the first is smaller, such as "
            f"--profile=10:15; got {text!r}."
        )
    return int(start), int(stop)


def _preview_error(value):
    return f"--preview must be a number of batches from 1 to {_MOST_PREVIEWED}; got {value!r}."


def _check_overrides(argv):
    """Refuses what the library would answer with a bare KeyError, or silently put together."""
    known, seen = field_paths(Config()), set()
    for argument in argv[1:]:
        if re.match(r"--?config(=|$)", argument):
            raise flags.Error("--config takes one field at a time: --config.training.epochs=10.")
        path = re.sub(r"^--?(no)?config\.|=.*", "", argument, flags=re.DOTALL)
        if not re.match(r"--?(no)?config\.", argument):
            continue
        if path not in known:
            raise flags.Error(f"There is no configuration field {path!r}; {_nearest(path, known)}")
        if path in seen:
            raise flags.Error(f"--config.{path} is given twice.")
        seen.add(path)


def _nearest(path, known):
    below = [name for name in known if name.startswith(f"{path}.")]
    if below:
        return f"its fields are {', '.join(below)}."
    near = difflib.get_close_matches(path, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"fields are {', '.join(known)}."


def _define_flags(argv, values, script):
    into, recipes = {"flag_values": values}, list(script.recipes)
    flags.DEFINE_enum("recipe", recipes[0], recipes, "Training setting of the paper.", **into)
    flags.DEFINE_string("model", script.model, "A name of `pit-keras models`.", **into)
    flags.DEFINE_string(
        "weights", None, "What to start from: imagenet, none, or a weights file.", **into
    )
    flags.DEFINE_string(
        "teacher",
        None,
        "For --recipe=distill: a model's name or a trained one's path.",
        **into,
    )
    flags.DEFINE_string("output_dir", None, "Run folder, made if need be.", **into)
    flags.DEFINE_string("dataset", None, f"{script.dataset}.", **into)
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data sets.", **into)
    flags.DEFINE_list(
        "image_size",
        None,
        "Side in pixels, or height,width; of a detector largest short side,largest long side.",
        **into,
    )
    flags.DEFINE_integer(
        "batch_size", None, "Images that pass the model at once, over all devices.", **into
    )
    flags.DEFINE_integer("epochs", None, "Length of the training.", **into)
    flags.DEFINE_integer("seed", None, "Seed of every random decision.", **into)
    flags.DEFINE_enum("distribute", None, DISTRIBUTE, "Devices to train on.", **into)
    flags.DEFINE_enum("precision", None, PRECISION, "Precision of the activations.", **into)
    _define_training_flags(into)
    _define_circumstances(into)
    # The library defines the overrides that it finds in argv.
    config_flags.DEFINE_config_dataclass(
        "config", Config(), "Any value of the recipe.", sys_argv=argv, **into
    )


def _define_training_flags(into):
    flags.DEFINE_enum("jit", None, JIT, "Whether XLA compiles the step; auto: as measured.", **into)
    flags.DEFINE_integer(
        "accumulate", None, "Batches whose gradients are summed for one update.", **into
    )
    flags.DEFINE_integer(
        "checkpoint_every_steps", None, "Save each time so many updates are done, too.", **into
    )
    flags.DEFINE_float(
        "checkpoint_every_minutes", None, "Save when so many minutes have passed, too.", **into
    )


def _define_circumstances(into):
    flags.DEFINE_list(
        "workers",
        None,
        "For --distribute=multi_worker: HOST:PORT of every worker; else TF_CONFIG tells.",
        **into,
    )
    flags.DEFINE_integer("worker", None, "This worker's number in --workers, from 0.", **into)
    flags.DEFINE_string(
        "manual_dir",
        None,
        "Where files lie that were downloaded by hand, to prepare a TFDS data set such as "
        "imagenet2012 from.",
        **into,
    )
    flags.DEFINE_string(
        "profile", None, "START:STOP, steps of the run to profile for TensorBoard.", **into
    )
    flags.DEFINE_integer(
        "preview",
        None,
        "Draw so many training batches as the model will see them, mixed and with their labels, to "
        "preview.png in the run folder, and stop.",
        **into,
    )


def config_from_flags(values, model=None):
    """The configuration that the parsed flags describe.

    Args:
        values: `absl.flags.FLAGS` after parsing.
        model: The model's name; None for that of the flag.

    Raises:
        ValueError: For a value out of range, or one that is set twice to different values.
    """
    model = model or values.model
    config = recipe(values.recipe, model)
    _check_task(config)
    named = {path: getattr(values, flag) for flag, path in _FIELDS.items()}
    named["model.name"] = model
    if values.image_size is not None:
        named["data.image_size"] = image_size_of(values.image_size)
    named = {path: value for path, value in named.items() if value is not None}
    overrides = config_flags.get_override_values(values["config"])
    for path, value in overrides.items():
        if path in named and named[path] != value:
            raise ValueError(f"{path} is set twice, to {named[path]!r} and to {value!r}.")
    for path, value in {**named, **overrides}.items():
        set_field(config, path, None if (path, value) == ("model.weights", "none") else value)
    try:
        validate(config)
    except FieldError as error:
        raise ValueError(f"{_flag_of(error.path)} {error.problem}") from None
    return config


def _check_task(config):
    """Refuses a model that the other training script trains."""
    is_detector, model = config.model.is_detector, config.model.name
    if is_detector == (config.recipe in DETECTION_RECIPES):
        return
    kind, script = ("detector", "detect.py") if is_detector else ("classifier", "train.py")
    raise ValueError(f"--model={model} is a {kind}, which is trained with train/{script}.")


def _flag_of(path):
    """The flag that a user sets a field with: `--epochs`, `--config.data.flip`."""
    named = {field: flag for flag, field in _FIELDS.items()}
    return f"--{named.get(path, f'config.{path}')}"


def image_size_of(sides):
    """Height and width from the one or two sides that --image_size lists.

    Raises:
        ValueError: If it is not of this form.
    """
    if len(sides) not in (1, 2) or not all(side.isdigit() for side in sides):
        raise ValueError(
            f"--image_size must be one side or height,width in pixels; got {','.join(sides)!r}."
        )
    return tuple(int(side) for side in (*sides, *sides)[:2])
