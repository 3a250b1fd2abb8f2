"""Models by name, with or without weights: `create_model("pit_s", weights="imagenet")`."""

import os
from typing import Any

import keras

from pit_keras.config.model_names import DISTILLED, list_models
from pit_keras.models import detr
from pit_keras.models.fit_checks import Classifier
from pit_keras.models.keras_applications import Application
from pit_keras.models.registry import (
    build_model,
    check_known,
    overridable_fields,
    variant_of,
)
from pit_keras.weights.keras_files import layer_names
from pit_keras.weights.loading import check_weights_file, load_weights
from pit_keras.weights.released import IMAGENET, release_of


def create_model(
    variant: str,
    /,
    *,
    classes: int = 1000,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    weights: str | os.PathLike | None = None,
    weights_across_distillation: bool = False,
    include_top: bool = True,
    classifier_activation: Any = None,
    drop_rate: float = 0.0,
    attention_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    name: str | None = None,
    **overrides: Any,
) -> keras.Model:
    """Creates a model by name, as a functional `keras.Model` from images to logits.

    Images are float RGB, normalised with ImageNet's mean and standard deviation. The detectors
    `detr_*` give {"logits": (B, queries, classes + 1), "boxes": (B, queries, 4)}, see
    `pit_keras.models.detr`.

    Args:
        variant: One of `list_models()`. One that ends in `_distilled` has a distillation token; its
            output is the mean of its two heads (`two_headed` gives both).
        input_shape: Height, width and channels. A height or width of None leaves it open until the
            model is called: the position embedding, made for 224 x 224 images (or
            `base_size=(height, width)`), is then resampled to each image's grid.
        weights: None; "imagenet" for the released weights; or the path of a `.keras`,
            `.weights.h5`, `.safetensors` or `.pth` file. Weights of another image size, number of
            channels or classes are adapted, without their heads in the last case; see
            `pit_keras.weights.load_weights`. A detector takes a classifier's weights for its
            backbone, or a detector's `.keras` file for the whole.
        weights_across_distillation: Whether weights of a distilled model may go into a plain one,
            without those of distillation, or the reverse, with copies in their place.
        include_top: Whether the classifier is there. Without it the output is the normalised class
            token (B, C), for distilled models the mean of both tokens, and for convolutional
            networks the mean of the last map.
        classifier_activation: Activation of the output, such as "softmax"; None for logits.
        drop_rate: Dropout after the position embedding, the attention's projection and in the MLP;
            for ResNet and RegNetY before the classifier.
        drop_path_rate: Stochastic depth, growing with depth (see `Settings.drop_path_rates`). All
            three rates are a detector's backbone's; `dropout` is for the rest.
        name: The model's own name, if not the variant's; models of an ensemble need different ones.
        **overrides: Fields of the variant's row, such as `patch_size=4, stride=2` for small images,
            or `output_stride=16` for a PiT whose last two stages share one grid.

    Raises:
        ValueError: For an unknown name or argument (with the valid ones), an image too small, an
            option without a meaning for the model, or weights that are damaged or do not fit.
        FileNotFoundError: If the weights are neither on this machine nor within reach.
    """
    row = variant_of(variant)
    _check_weights(variant, row, weights, weights_across_distillation)
    settings = {
        "classes": classes,
        "input_shape": input_shape,
        "include_top": include_top,
        "classifier_activation": classifier_activation,
        "drop_rate": drop_rate,
        "attention_drop_rate": attention_drop_rate,
        "drop_path_rate": drop_path_rate,
    }
    model, weights = _built(variant, row, settings, weights, overrides)
    if weights is not None:
        load_weights(model, weights, across_distillation=weights_across_distillation)
    kind = Classifier if include_top and not isinstance(row, detr.Detr) else keras.Model
    return kind(model.input, model.output, name=name or variant)


def _built(variant, row, settings, weights, overrides):
    """A model, and the weights that are still to be loaded."""
    if isinstance(row, detr.Detr):
        return _detector(variant, row, settings, weights, overrides)
    of_family = None
    if weights == IMAGENET and isinstance(row, Application):
        # Keras loads them itself, into a network that it builds slightly differently for them.
        of_family, weights = {"weights": weights}, None
    return build_model(variant, **settings, overrides=overrides, of_family=of_family), weights


def _detector(variant, row, settings, weights, overrides):
    """A detector, its backbone with its weights; and the weights that are still to be loaded."""
    own = overridable_fields(row)
    check_known(variant, overrides, {**own, **overridable_fields(variant_of(row.backbone))})
    of_backbone = {field: value for field, value in overrides.items() if field not in own}
    overrides = {field: value for field, value in overrides.items() if field in own}
    # A detector's own weights, not those of its backbone.
    of_whole = weights is not None and detr.INPUT_PROJECTION in layer_names(weights)
    backbone = create_model(
        row.backbone,
        weights=None if of_whole else weights,
        **{**settings, "classes": 1000, "include_top": False, "classifier_activation": None},
        **{**row.backbone_fields, **of_backbone},
    )
    model = build_model(variant, **settings, overrides=overrides, of_family={"backbone": backbone})
    return model, weights if of_whole else None


def _check_weights(variant, row, weights, across_distillation):
    if weights is not None and not isinstance(weights, (str, os.PathLike)):
        raise ValueError(
            f"weights must be None, 'imagenet', or the path of a file; got {weights!r}."
        )
    if weights not in (None, IMAGENET):
        check_weights_file(weights)  # before a network is built
    if across_distillation and weights is None:
        raise ValueError("weights_across_distillation=True needs weights.")
    if across_distillation and variant.removesuffix(DISTILLED) + DISTILLED not in list_models():
        raise ValueError(
            f"weights_across_distillation must be False for {variant}, which has no distilled form."
        )
    if weights == IMAGENET and not isinstance(row, (detr.Detr, Application)):
        release_of(variant)  # before a network is built
