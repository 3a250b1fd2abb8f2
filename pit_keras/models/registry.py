"""The table of all models by name, and how a row of it is built."""

import dataclasses
import difflib
import fnmatch
import math
import numbers
from typing import Any

from pit_keras.models import detr, keras_applications, pit, regnet, resnet, vit

DISTILLED = "_distilled"

_FAMILIES = (pit, vit, resnet, regnet, keras_applications, detr)
_MODELS = {  # rows and the functions that build them, by name
    name + form: (row, family.build)
    for family in _FAMILIES
    for name, row in family.VARIANTS.items()
    for form in (("", DISTILLED) if family in (pit, vit) else ("",))
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of `create_model` that all families share."""

    name: str
    classes: int = 1000
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3)
    include_top: bool = True
    classifier_activation: Any = None
    drop_rate: float = 0.0
    attention_drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    @property
    def num_tokens(self):
        """T: the class token, and for distilled models the distillation token."""
        return 2 if self.name.endswith(DISTILLED) else 1

    def __post_init__(self):
        sides = self.input_shape
        if isinstance(sides, tuple):  # height and width may be None, any size at run time
            sides = tuple(1 if side is None else side for side in sides[:2]) + sides[2:]
        if not isinstance(sides, tuple) or len(sides) != 3 or not all(map(_is_positive_int, sides)):
            raise ValueError(
                "input_shape must be (height, width, channels), three positive integers; height "
                f"and width may be None; got {self.input_shape!r}."
            )
        if not _is_positive_int(self.classes):
            raise ValueError(f"classes must be a positive integer; got {self.classes!r}.")
        check_bool("include_top", self.include_top)
        if not self.include_top:
            self.require("classifier_activation", None, "The classifier is left out")
        for field in ("drop_rate", "attention_drop_rate", "drop_path_rate"):
            rate = getattr(self, field)
            if not _is_number(rate) or not 0 <= rate < 1:
                raise ValueError(f"{field} must be a number in [0, 1); got {rate!r}.")

    def require(self, option, value, reason):
        """Refuses an option that has no meaning for the network."""
        given = getattr(self, option)
        if given != value:
            raise ValueError(
                f"{reason}, so {option} of {self.name} must be {value}; got {given!r}."
            )

    def drop_path_rates(self, blocks):
        """Drop path of each block: rate * i / blocks, as in the authors' code.

        It never reaches the rate itself; timm's, which is spaced up to and including it, does.
        """
        return [self.drop_path_rate * block / blocks for block in range(blocks)]


def list_models(pattern="*"):
    """Names of all models that match a shell pattern, sorted: `list_models("pit_*")`."""
    if not isinstance(pattern, str):
        raise ValueError(f"pattern must be a string, such as 'pit_*'; got {pattern!r}.")
    return sorted(fnmatch.filter(_MODELS, pattern))


def variant_of(name):
    """The row of a model's family table, such as a `PiT`; ValueError for an unknown name."""
    return _find(name)[0]


def _find(name):
    if name not in _MODELS:
        near = difflib.get_close_matches(str(name), list_models(), n=3)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"Unknown model {name!r}. {hint}Models are: {', '.join(list_models())}.")
    return _MODELS[name]


def build_model(name, *, overrides=None, of_family=None, **settings):
    """Builds a model without weights.

    Args:
        overrides: Fields of the variant's row and their values.
        of_family: Arguments of one family's `build` alone: a detector's `backbone`, the `weights`
            that Keras loads into its applications.
        **settings: Fields of `Settings`; see `pit_keras.create_model`.
    """
    variant, build = _find(name)
    settings = Settings(name, **{field: _plain(value) for field, value in settings.items()})
    return build(_overridden(name, variant, overrides or {}), settings, **(of_family or {}))


def overridable_fields(variant):
    """Fields of a row that can be overridden, and their values there."""
    return {
        field.name: getattr(variant, field.name)
        for field in dataclasses.fields(variant)
        if field.metadata.get("override", True)
    }


def check_known(name, overrides, fields):
    """Raises ValueError, with the valid arguments, for an override that is none of the fields."""
    unknown = sorted(set(overrides) - set(fields))
    if unknown:
        common = [field.name for field in dataclasses.fields(Settings)][1:]
        raise ValueError(
            f"create_model({name!r}) has no argument {unknown[0]!r}; arguments are "
            f"{', '.join([*common, 'weights', 'weights_across_distillation', *fields])}."
        )


def _overridden(name, variant, overrides):
    fields = overridable_fields(variant)
    check_known(name, overrides, fields)
    overrides = {field: _plain(value) for field, value in overrides.items()}
    for field, value in overrides.items():
        _check_override(name, field, value, fields[field])
    variant = dataclasses.replace(variant, **overrides)
    if "mlp_ratio" in fields and min(variant.widths()) * variant.mlp_ratio < 1:
        raise ValueError(
            f"mlp_ratio={variant.mlp_ratio} leaves the MLP of {name} no hidden units; it must be "
            f"at least {1 / min(variant.widths())}."
        )
    return variant


def _check_override(name, field, value, default):
    """Overrides have the form of what they replace: a positive number, or as many of them."""
    if default is None:
        return  # what None stands for depends on other fields; the row checks it where it is used
    if isinstance(default, tuple):
        form = f"{len(default)} positive integers"
        fits = isinstance(value, tuple) and len(value) == len(default)
        fits = fits and all(map(_is_positive_int, value))
    elif isinstance(default, bool):
        form, fits = "True or False", isinstance(value, bool)
    elif field == "dropout":
        form, fits = "a number in [0, 1)", _is_number(value) and 0 <= value < 1
    elif isinstance(default, float):
        form, fits = "a positive number", _is_number(value) and 0 < value < math.inf
    else:
        form, fits = "a positive integer", _is_positive_int(value)
    if not fits:
        raise ValueError(f"{field} of {name} must be {form}, like {default}; got {value!r}.")


def _plain(value):
    """NumPy's numbers as Python's, sequences of them as tuples, and all else as it is."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    if not _is_number(value):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def check_bool(name, value):
    """Raises ValueError for an argument that is neither True nor False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False; got {value!r}.")


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_positive_int(value):
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
