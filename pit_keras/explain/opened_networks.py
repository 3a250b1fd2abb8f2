"""The networks that an analysis looks at: named ones, and trained ones from files."""

import dataclasses
import pathlib

import keras

from pit_keras.config.fields import DataConfig
from pit_keras.create import create_model
from pit_keras.models import list_models, variant_of
from pit_keras.models.attention import has_transformer_blocks
from pit_keras.models.pit import PiT
from pit_keras.models.vit import ViT
from pit_keras.runs.trained_model import load_trained_model


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with what an analysis has to know about it.

    Attributes:
        name: What it was asked for as.
        model: From normalised images of one size.
        data: The `DataConfig` with that size and the evaluation crop.
        weights: Where its weights come from, for the record; empty if they do not matter.
    """

    name: str
    model: keras.Model
    data: DataConfig
    weights: str

    @property
    def described(self):
        """What is to be known before its measurement begins, in one line."""
        if has_transformer_blocks(self.model):
            return f"{self.name}, weights: {self.weights}"
        return f"{self.name} has no attention: the paper's approximation stands in for it"


def open_networks(names, weights=None, image_size=None):
    """Opens networks of which each is a model's name, a run folder or a `.keras` file.

    Networks of convolutions alone are built by name without weights: what is known of their spatial
    interaction does not depend on any.

    Args:
        names: What to open, each once.
        weights: Of the transformers by name: "imagenet", "none" for random ones, or the path of a
            weights file where there is only one.
        image_size: Height and width for networks by name; None for 224 x 224. Others have theirs.

    Returns:
        A list of `Network`.

    Raises:
        ValueError, FileNotFoundError: If a network cannot be opened, or something is given that
            none of them takes; the sentence says why.
    """
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Give one or more models, each once; got {', '.join(names) or 'none'}.")
    named = [name for name in names if not _is_path(name)]
    _check_given(named, weights, image_size)
    size = image_size or DataConfig().image_size
    return [_named(name, weights, size) if name in named else _trained(name) for name in names]


def _is_path(name):
    if name in list_models():
        return False
    path = pathlib.Path(name)
    return path.exists() or bool(path.suffix) or len(path.parts) > 1


def _check_given(named, weights, image_size):
    transformers = [name for name in named if isinstance(variant_of(name), (PiT, ViT))]
    if transformers and weights is None:
        raise ValueError(
            f"--weights must say which weights {transformers[0]} gets: imagenet, a weights file, "
            "or none for random ones."
        )
    if weights is not None and not transformers:
        raise ValueError(
            f"--weights={weights} is for a PiT or ViT that is given by name, and there is none."
        )
    if weights not in (None, "imagenet", "none") and len(transformers) > 1:
        raise ValueError(
            f"--weights={weights} is the file of one model, but it was given for "
            f"{' and '.join(transformers)}."
        )
    if image_size is not None and not named:
        raise ValueError(
            f"--image_size={image_size[0]},{image_size[1]} is for models by name, and there is "
            "none; trained models have their own."
        )


def _named(name, weights, image_size):
    if not isinstance(variant_of(name), (PiT, ViT)):
        weights = ""
    model = create_model(
        name,
        input_shape=(*image_size, 3),
        weights=None if weights in ("", "none") else weights,
    )
    return Network(name, model, DataConfig(image_size=tuple(image_size)), weights)


def _trained(path):
    trained = load_trained_model(path)
    return Network(path, trained.model, trained.data, "its own")
