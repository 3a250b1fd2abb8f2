"""Models by name: `create_model("pit_s")`."""

import dataclasses
import difflib
import fnmatch
from typing import Any

from pit_keras.models import pit, vit

DISTILLED = "_distilled"

# Each family: its table of variants and the function that builds a row of it.
_FAMILIES = ((pit.VARIANTS, pit.build), (vit.VARIANTS, vit.build))


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is common to all models; see `create_model` for the meaning."""

    name: str
    num_tokens: int
    classes: int
    input_shape: tuple[int, int, int]
    include_top: bool
    classifier_activation: Any
    drop_rate: float
    attention_drop_rate: float
    drop_path_rate: float

    def __post_init__(self):
        sides = self.input_shape
        if len(sides) != 3 or not all(isinstance(side, int) and side > 0 for side in sides):
            raise ValueError(
                f"input_shape must be (height, width, channels), three positive integers; got "
                f"{self.input_shape}."
            )
        if not isinstance(self.classes, int) or self.classes < 1:
            raise ValueError(f"classes must be a positive integer; got {self.classes!r}.")
        for field in ("drop_rate", "attention_drop_rate", "drop_path_rate"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{field} must lie in [0, 1); got {getattr(self, field)}.")

    def drop_path_rates(self, blocks):
        """Drop path of each block: rate * i / blocks, as in the authors' code.

        It never reaches the rate itself; timm's, which is spaced up to and including it, does.
        """
        return [self.drop_path_rate * block / blocks for block in range(blocks)]


def list_models(pattern="*"):
    """Names of all models that match a shell pattern, sorted: `list_models("pit_*")`."""
    names = [
        name + suffix for table, _ in _FAMILIES for name in table for suffix in ("", DISTILLED)
    ]
    return sorted(fnmatch.filter(names, pattern))


def variant_of(name):
    """The row of a model's family table, a `PiT` or a `ViT`.

    Raises:
        ValueError: If no model has this name; it names the nearest.
    """
    return _find(name)[0]


def _find(name):
    for table, build in _FAMILIES:
        row = table.get(str(name).removesuffix(DISTILLED))
        if row is not None:
            return row, build
    near = difflib.get_close_matches(str(name), list_models(), n=3)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"Unknown model {name!r}. {hint}Models are: {', '.join(list_models())}.")


def create_model(
    name,
    *,
    classes=1000,
    input_shape=(224, 224, 3),
    weights=None,
    include_top=True,
    classifier_activation=None,
    drop_rate=0.0,
    attention_drop_rate=0.0,
    drop_path_rate=0.0,
    **overrides,
):
    """Creates a model by name, as a functional `keras.Model` from images to logits.

    Args:
        name: One of `list_models()`. A name that ends in `_distilled` has a distillation token; its
            output is the mean of its two heads (`two_headed` gives both).
        classes: Number of classes.
        input_shape: Height, width and channels; rectangles too. Images are float RGB, normalised
            with ImageNet's mean and standard deviation.
        weights: None, or the path of a file: `.keras`, `.weights.h5`, or a PyTorch checkpoint as
            `.safetensors` or `.pth` (see `load_pytorch_weights`).
        include_top: Whether the classifier is there. Without it the output is the normalised class
            token (B, C), for distilled models the mean of both tokens.
        classifier_activation: Activation of the output, such as "softmax"; None for logits.
        drop_rate: Dropout after the position embedding, the attention's projection and in the MLP.
        attention_drop_rate: Dropout of the attention weights.
        drop_path_rate: Stochastic depth, growing with depth (see `Settings.drop_path_rates`).
        **overrides: Fields of the variant's row, such as `patch_size=4, stride=2` for small images.

    Returns:
        A `keras.Model` of the global dtype policy (`keras.config.set_dtype_policy`).

    Raises:
        ValueError: For an unknown name or argument (with the valid ones), an image too small for
            the patch or the poolings, or weights that do not fit.
        FileNotFoundError: If the weights' file is not there.
    """
    variant, build = _find(name)
    model = build(
        _overridden(name, variant, overrides),
        Settings(
            name=name,
            num_tokens=2 if name.endswith(DISTILLED) else 1,
            classes=classes,
            input_shape=tuple(input_shape),
            include_top=include_top,
            classifier_activation=classifier_activation,
            drop_rate=drop_rate,
            attention_drop_rate=attention_drop_rate,
            drop_path_rate=drop_path_rate,
        ),
    )
    if weights is not None:
        # Imported here: the models do not depend on the formats of files.
        from pit_keras.weights import load_weights

        load_weights(model, weights)
    return model


def _overridden(name, variant, overrides):
    fields = {field.name: getattr(variant, field.name) for field in dataclasses.fields(variant)}
    unknown = sorted(set(overrides) - set(fields))
    if unknown:
        common = [
            field.name for field in dataclasses.fields(Settings) if field.name != "num_tokens"
        ]
        raise ValueError(
            f"create_model({name!r}) has no argument {unknown[0]!r}; arguments are "
            f"{', '.join([*common[1:], 'weights', *fields])}."
        )
    for field, value in overrides.items():
        _check_override(name, field, value, fields[field])
    return dataclasses.replace(variant, **overrides)


def _check_override(name, field, value, default):
    """Overrides have the form of what they replace: a positive number, or as many of them."""
    values = value if isinstance(default, tuple) else (value,)
    numbers = (int, float) if isinstance(default, float) else int
    form = (
        f"{len(default)} positive integers" if isinstance(default, tuple) else "a positive number"
    )
    if (
        not isinstance(values, (tuple, list))
        or (isinstance(default, tuple) and len(values) != len(default))
        or not all(isinstance(number, numbers) and number > 0 for number in values)
    ):
        raise ValueError(f"{field} of {name} must be {form}, like {default}; got {value!r}.")
