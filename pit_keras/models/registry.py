"""The table of all models by name, and how a row of it is built."""

import dataclasses
import math
from typing import Any

import numpy as np

from pit_keras.config.fields import LARGEST_SIZE
from pit_keras.config.model_names import DISTILLED, check_model_name, did_you_mean
from pit_keras.models import detr, keras_applications, pit, regnet, resnet, vit

# More would not fit into a machine's memory.
_MOST_CLASSES = 2**20
_MOST_PARAMETERS = 2**33
_MOST_TOKENS = 2**16

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
        if np.shape(self.input_shape) != (3,):
            raise ValueError(
                "input_shape must be (height, width, channels), where height and width may be "
                f"None; got {self.input_shape!r}."
            )
        if not self.include_top:
            self.require("classifier_activation", None, "The classifier is left out")

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


def variant_of(name):
    """The row of a model's family table, such as a `PiT`; ValueError for an unknown name."""
    return _find(name)[0]


def _find(name):
    check_model_name(name)
    return _MODELS[name]


def build_model(name, *, overrides=None, of_family=None, **settings):
    """Builds a model without weights, with `Settings`; see `pit_keras.create_model`.

    `overrides` are fields of the variant's row. `of_family` are arguments of one family's `build`
    alone: a detector's `backbone`, the `weights` that Keras loads into its applications.
    """
    variant, build = _find(name)
    settings = Settings(name, **{field: _plain(value) for field, value in settings.items()})
    overrides = {field: _plain(value) for field, value in (overrides or {}).items()}
    fields = overridable_fields(variant)
    check_known(name, overrides, fields)
    for field, value in overrides.items():
        # What None stands for depends on other fields; the row checks it where it is used.
        if fields[field] is not None and not _fits(value, fields[field]):
            raise ValueError(f"{field} of {name} must be like {fields[field]}; got {value!r}.")
    variant = dataclasses.replace(variant, **overrides)
    _check_sizes(variant, settings, overrides)
    return build(variant, settings, **(of_family or {}))


def _check_sizes(variant, settings, overrides):
    """Raises ValueError for numbers that no machine has the memory for."""
    widths = variant.widths() if hasattr(variant, "widths") else ()
    sizes = {"classes": settings.classes, "input_shape": settings.input_shape}
    for name, value in {**sizes, **overrides, "width, head_dim x heads,": widths}.items():
        most = _MOST_CLASSES if name == "classes" else LARGEST_SIZE
        values = value if isinstance(value, tuple) else (value,)
        if any(type(each) is int and each > most for each in values):
            raise ValueError(f"{name} of {settings.name} must be at most {most}; got {value!r}.")
    if isinstance(variant, (pit.PiT, vit.ViT)):
        _check_transformer(variant, settings)


def _check_transformer(variant, settings):
    depths = getattr(variant, "depths", None) or (variant.depth,)
    products = zip(depths, variant.widths(), strict=False)
    parameters = sum(12 * depth * width**2 for depth, width in products)
    image_size = settings.input_shape[:2]
    tokens = 0 if None in image_size else math.prod(variant.grids(image_size)[0])
    for number, most, what in (
        (parameters, _MOST_PARAMETERS, "parameters in its blocks"),
        (tokens, _MOST_TOKENS, f"tokens for {image_size[0]} x {image_size[1]} pixels"),
    ):
        if number > most:
            raise ValueError(f"{settings.name} would have {number:,} {what}; {most:,} is the most.")


def _fits(value, usual):
    """Whether a value has the form of the usual one; whole numbers are positive."""
    if np.shape(value) != np.shape(usual):
        return False
    if not isinstance(usual, tuple) and type(usual) is not int:
        return True
    values = value if isinstance(value, tuple) else (value,)
    return all(type(each) is int and each > 0 for each in values)


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
        known = [*common, "weights", "weights_across_distillation", "name", *fields]
        hint = did_you_mean(unknown[0], known)
        raise ValueError(
            f"create_model({name!r}) has no argument {unknown[0]!r}. {hint}Arguments are: "
            f"{', '.join(known)}."
        )


def _plain(value):
    """NumPy's numbers as Python's, sequences of them as tuples, and all else as it is."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value
