"""Models by name: `create_model("pit_s")`."""

import dataclasses
import difflib
import fnmatch
import functools
import math
import numbers
import os
from collections.abc import Callable
from typing import Any

from pit_keras.models import applications, detr, pit, regnet, resnet, vit

DISTILLED = "_distilled"


@dataclasses.dataclass(frozen=True)
class _Family:
    """A table of variants, the function that builds a row of it, and the forms that each row has.

    Every row has a method `grids(image_size)`, the height and width of each stage's map.
    """

    variants: dict[str, Any]
    build: Callable
    suffixes: tuple[str, ...] = ("",)

    def names(self):
        return [name + suffix for name in self.variants for suffix in self.suffixes]


_FAMILIES = (
    _Family(pit.VARIANTS, pit.build, ("", DISTILLED)),
    _Family(vit.VARIANTS, vit.build, ("", DISTILLED)),
    _Family(resnet.VARIANTS, resnet.build),
    _Family(regnet.VARIANTS, regnet.build),
    _Family(applications.VARIANTS, applications.build),
    _Family(detr.VARIANTS, detr.build),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is common to all models; see `create_model` for the meaning."""

    name: str
    num_tokens: int
    classes: int
    input_shape: tuple[int | None, int | None, int]
    include_top: bool
    classifier_activation: Any
    drop_rate: float
    attention_drop_rate: float
    drop_path_rate: float

    def __post_init__(self):
        # Height and width may be None, any size at run time; the channels may not.
        sides = self.input_shape
        if isinstance(sides, tuple):
            sides = tuple(1 if side is None else side for side in sides[:2]) + sides[2:]
        if not isinstance(sides, tuple) or len(sides) != 3 or not all(map(_is_positive_int, sides)):
            raise ValueError(
                f"input_shape must be (height, width, channels), three positive integers, of which "
                f"height and width may be None; got {self.input_shape!r}."
            )
        if not _is_positive_int(self.classes):
            raise ValueError(f"classes must be a positive integer; got {self.classes!r}.")
        _check_bool("include_top", self.include_top)
        if not self.include_top and self.classifier_activation is not None:
            raise ValueError(
                "classifier_activation belongs to the classifier, which include_top=False leaves "
                f"out; it must be None, got {self.classifier_activation!r}."
            )
        for field in ("drop_rate", "attention_drop_rate", "drop_path_rate"):
            rate = getattr(self, field)
            if not _is_number(rate) or not 0 <= rate < 1:
                raise ValueError(f"{field} must be a number in [0, 1); got {rate!r}.")

    def drop_path_rates(self, blocks):
        """Drop path of each block: rate * i / blocks, as in the authors' code.

        It never reaches the rate itself; timm's, which is spaced up to and including it, does.
        """
        return [self.drop_path_rate * block / blocks for block in range(blocks)]


def list_models(pattern="*"):
    """Names of all models that match a shell pattern, sorted: `list_models("pit_*")`.

    Raises:
        ValueError: If the pattern is not a string.
    """
    if not isinstance(pattern, str):
        raise ValueError(f"pattern must be a string, such as 'pit_*'; got {pattern!r}.")
    names = [name for family in _FAMILIES for name in family.names()]
    return sorted(fnmatch.filter(names, pattern))


def variant_of(name):
    """The row of a model's family table, such as a `PiT` or a `ResNet`.

    Raises:
        ValueError: If no model has this name; it names the nearest.
    """
    return _find(name)[0]


def _find(name):
    for family in _FAMILIES:
        if name in family.names():
            return family.variants[name.removesuffix(DISTILLED)], family.build
    near = difflib.get_close_matches(str(name), list_models(), n=3)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"Unknown model {name!r}. {hint}Models are: {', '.join(list_models())}.")


def create_model(
    name,
    *,
    classes=1000,
    input_shape=(224, 224, 3),
    weights=None,
    weights_across_distillation=False,
    include_top=True,
    classifier_activation=None,
    drop_rate=0.0,
    attention_drop_rate=0.0,
    drop_path_rate=0.0,
    **overrides,
):
    """Creates a model by name, as a functional `keras.Model` from images to logits.

    The detectors `detr_*` give {"logits": (B, queries, classes + 1), "boxes": (B, queries, 4)}, see
    `pit_keras.models.detr`.

    Args:
        name: One of `list_models()`. A name that ends in `_distilled` has a distillation token; its
            output is the mean of its two heads (`two_headed` gives both).
        classes: Number of classes.
        input_shape: Height, width and channels; rectangles too. A height or width of None leaves
            it open until the model is called; the position embedding then has the grid of 224 x 224
            images (`base_size=(height, width)` for others) and is resampled to each image's grid.
            Images are float RGB, normalised with ImageNet's mean and standard deviation.
        weights: None; "imagenet" for the released weights of this model; or the path of a file:
            `.keras`, `.weights.h5`, or a PyTorch checkpoint as `.safetensors` or `.pth`. They may
            be of another size, number of classes or of channels: the position embedding is
            resampled, the RGB kernel adapted, and heads of other classes are left out with a
            warning (see `pit_keras.weights.load_weights`). Those of `keras.applications`
            (`pit_keras/models/applications.py`) are downloaded by Keras. A detector takes a
            classifier's for its backbone, or a detector's `.keras` file for the whole.
        weights_across_distillation: Whether weights of a distilled model may go into a plain one,
            without those of distillation, or the reverse, with copies in their place.
        include_top: Whether the classifier is there. Without it the output is the normalised class
            token (B, C), for distilled models the mean of both tokens, and for convolutional
            networks the mean of the last map.
        classifier_activation: Activation of the output, such as "softmax"; None for logits.
        drop_rate: Dropout after the position embedding, the attention's projection and in the MLP;
            for ResNet and RegNetY before the classifier.
        attention_drop_rate: Dropout of the attention weights.
        drop_path_rate: Stochastic depth, growing with depth (see `Settings.drop_path_rates`). All
            three are the backbone's in a detector, which has `dropout` for the rest.
        **overrides: Fields of the variant's row, such as `patch_size=4, stride=2` for small images,
            or `output_stride=16` for a PiT whose last two stages share one grid.

    Returns:
        A `keras.Model` of the global dtype policy (`keras.config.set_dtype_policy`).

    Raises:
        ValueError: For an unknown name or argument (with the valid ones), an image too small for
            the patch or the poolings, an option that has no meaning for the model, or weights that
            are damaged or do not fit.
        FileNotFoundError: If the weights' file is not there, or the released weights are neither on
            this machine nor within reach.
    """
    variant, build = _find(name)
    _check_weights(name, weights, weights_across_distillation)
    settings = Settings(
        name=name,
        num_tokens=2 if name.endswith(DISTILLED) else 1,
        classes=_plain(classes),
        input_shape=_plain(input_shape),
        include_top=include_top,
        classifier_activation=classifier_activation,
        drop_rate=_plain(drop_rate),
        attention_drop_rate=_plain(attention_drop_rate),
        drop_path_rate=_plain(drop_path_rate),
    )
    if weights == "imagenet" and isinstance(variant, applications.Application):
        # Keras loads them itself, into a network that it builds slightly differently for them.
        build, weights = functools.partial(build, weights=weights), None
    if isinstance(variant, detr.Detr):
        model, weights = _detector(name, variant, settings, weights, overrides)
    else:
        model = build(_overridden(name, variant, overrides), settings)
    if weights is not None:
        # Imported here: the models do not depend on the formats of files.
        from pit_keras.weights import load_weights

        load_weights(model, weights, across_distillation=weights_across_distillation)
    return model


def _detector(name, variant, settings, weights, overrides):
    """A detector, its backbone with its weights; and the weights that are still to be loaded."""
    of_backbone = _backbone_overrides(name, variant, overrides)
    variant = _overridden(
        name, variant, {k: value for k, value in overrides.items() if k not in of_backbone}
    )
    of_whole = weights is not None and _is_of_detector(weights)
    backbone = _backbone(variant, settings, None if of_whole else weights, of_backbone)
    return detr.build(variant, settings, backbone=backbone), weights if of_whole else None


def _check_weights(name, weights, across_distillation):
    if weights is not None and not isinstance(weights, (str, os.PathLike)):
        raise ValueError(
            "weights must be None, 'imagenet', or the path of a file as a string or os.PathLike; "
            f"got {weights!r}."
        )
    _check_bool("weights_across_distillation", across_distillation)
    if across_distillation and weights is None:
        raise ValueError("weights_across_distillation=True needs weights.")
    if across_distillation and name.removesuffix(DISTILLED) + DISTILLED not in list_models():
        raise ValueError(
            f"weights_across_distillation must be False for {name}, which has no distilled form."
        )


def _backbone_overrides(name, variant, overrides):
    """Those of a detector's overrides that are its backbone's."""
    own, of_backbone = _fields(variant), _fields(_find(variant.backbone)[0])
    _check_known(name, overrides, {**own, **of_backbone})
    return {field: value for field, value in overrides.items() if field not in own}


def _backbone(variant, settings, weights, overrides):
    return create_model(
        variant.backbone,
        input_shape=settings.input_shape,
        weights=weights,
        include_top=False,
        drop_rate=settings.drop_rate,
        attention_drop_rate=settings.attention_drop_rate,
        drop_path_rate=settings.drop_path_rate,
        **{**variant.backbone_fields, **overrides},
    )


def _is_of_detector(weights):
    """Whether weights for a detector are a detector's own, not those of its backbone."""
    from pit_keras.weights.keras_files import layer_names

    return detr.INPUT_PROJECTION in layer_names(weights)


def _fields(variant):
    """Fields of a row that can be overridden, and their values there."""
    return {
        field.name: getattr(variant, field.name)
        for field in dataclasses.fields(variant)
        if field.metadata.get("override", True)
    }


def _check_known(name, overrides, fields):
    unknown = sorted(set(overrides) - set(fields))
    if unknown:
        common = [
            field.name for field in dataclasses.fields(Settings) if field.name != "num_tokens"
        ]
        raise ValueError(
            f"create_model({name!r}) has no argument {unknown[0]!r}; arguments are "
            f"{', '.join([*common[1:], 'weights', 'weights_across_distillation', *fields])}."
        )


def _overridden(name, variant, overrides):
    fields = _fields(variant)
    _check_known(name, overrides, fields)
    overrides = {field: _plain(value) for field, value in overrides.items()}
    for field, value in overrides.items():
        _check_override(name, field, value, fields[field])
    variant = dataclasses.replace(variant, **overrides)
    if "mlp_ratio" in fields and min(variant.widths()) * variant.mlp_ratio < 1:
        raise ValueError(
            f"mlp_ratio={variant.mlp_ratio} leaves the MLP of {name} no hidden units; it must be "
            f"at least {1 / min(variant.widths())}, one for its {min(variant.widths())} channels."
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


def _check_bool(name, value):
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False; got {value!r}.")


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_positive_int(value):
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
