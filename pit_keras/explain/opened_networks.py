"""The networks that an analysis looks at: named ones, and trained ones from files."""

import dataclasses
import pathlib

import keras

from pit_keras.config.fields import DataConfig
from pit_keras.config.model_names import list_models
from pit_keras.create import create_model
from pit_keras.models import variant_of
from pit_keras.models.pit import PiT
from pit_keras.models.vit import ViT
from pit_keras.runs.trained_model import load_trained_model


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with its preprocessing."""

    name: str  # as the user gave it
    model: keras.Model  # from normalised images of one size
    data: DataConfig  # with that size and the evaluation crop
    weights: str  # where they come from; empty if they do not matter


def open_networks(names, weights=None, image_size=None):
    """Opens networks, each a model's name, a run folder or a `.keras` file.

    Convolutional networks by name get no weights: their spatial interaction does not depend on any.

    Args:
        weights: For PiT and ViT by name: "imagenet", "none" for random ones, or the path of a
            weights file where there is only one model.
        image_size: Height and width for networks by name; None for 224 x 224. Others have theirs.
    """
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Give one or more models, each once; got {', '.join(names) or 'none'}.")
    named = [name for name in names if not _is_path(name)]
    _check_given(named, weights, image_size)
    size = image_size or DataConfig().image_size
    return [_named(name, weights, size) if name in named else _trained(name) for name in names]


def _is_path(name):
    path = pathlib.Path(name)
    is_path = path.exists() or bool(path.suffix) or len(path.parts) > 1
    return is_path and name not in list_models()


def _is_transformer(name):
    return isinstance(variant_of(name), (PiT, ViT))


def _check_given(named, weights, image_size):
    transformers = list(filter(_is_transformer, named))
    if transformers and weights is None:
        raise ValueError(f"{transformers[0]} needs --weights: imagenet, a weights file, or none.")
    if weights is not None and not transformers:
        raise ValueError(f"--weights={weights} is for a PiT or ViT by name; --model has none.")
    if weights not in (None, "imagenet", "none") and len(transformers) > 1:
        names = " and ".join(transformers)
        raise ValueError(f"--weights={weights} is the file of one model; it is given for {names}.")
    if image_size is not None and not named:
        raise ValueError("--image_size is for models by name; trained ones have their own size.")


def _named(name, weights, image_size):
    weights = weights if _is_transformer(name) else ""
    file = None if weights in ("", "none") else weights
    model = create_model(name, input_shape=(*image_size, 3), weights=file)
    return Network(name, model, DataConfig(image_size=tuple(image_size)), weights)


def _trained(path):
    trained = load_trained_model(path)
    return Network(path, trained.model, trained.data, "its own")
