"""From a checkpoint to a `.keras` file."""

import os
import pathlib
import tempfile

from pit_keras.models.detr import Detr
from pit_keras.models.registry import build_model, variant_of
from pit_keras.weights.keras_files import read_keras
from pit_keras.weights.loading import PYTORCH_SUFFIXES, load_weights
from pit_keras.weights.pytorch import read_state_dict, shapes_of
from pit_keras.weights.released import IMAGENET, release_of
from pit_keras.weights.variants import Description, describe

IMAGENET_SIZE = (224, 224)


def convert(
    checkpoint,
    output=None,
    *,
    name=None,
    image_size=None,
    across_distillation=False,
    overwrite=False,
):
    """Writes a checkpoint as a `.keras` file.

    Args:
        checkpoint: A `.safetensors`, `.pth` or `.keras` file, or "imagenet" for released weights.
        output: The file to write; by default the model's name with `.keras`.
        name: A model of `create_model`; by default what the checkpoint looks like.
        image_size: Height and width of the images; by default those that the checkpoint is for.
        across_distillation: As for `load_weights`.
        overwrite: Whether a file that is there may be replaced.

    Returns:
        The path written, and the `Report` of what was carried over.

    Raises:
        ValueError: If the model cannot be told, is a detector, or the checkpoint does not fit it.
        FileNotFoundError: If the checkpoint is not there.
        FileExistsError: If the output is there.
    """
    description = _described(checkpoint, name)
    name = name or description.name
    if name is None:
        raise ValueError(f"{checkpoint} looks like no known model; name it with --model.")
    if isinstance(variant_of(name), Detr):
        raise ValueError(
            f"{name} is a detector, whose checkpoints are not converted but loaded: "
            "pit_keras.load_pytorch_weights(model, path)."
        )
    output = pathlib.Path(output or f"{name}.keras")
    if output.suffix != ".keras":
        raise ValueError(f"The output {output} must end in .keras.")
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} is there already; --overwrite replaces it.")
    size = image_size or _image_size(name, description.grid)
    model = build_model(
        name, classes=description.classes or 1000, input_shape=(*size, description.channels or 3)
    )
    report = load_weights(model, checkpoint, across_distillation=across_distillation)
    _save(model, output)
    return output, report


def _described(checkpoint, name):
    if str(checkpoint) == IMAGENET:
        if name is None:
            raise ValueError("imagenet stands for the released weights of a model: add --model.")
        release_of(name)
        return Description(name, classes=1000, channels=3, grid=None)
    path = pathlib.Path(checkpoint)
    if path.suffix not in (".keras", *PYTORCH_SUFFIXES):
        raise ValueError(
            f"Unknown checkpoint {str(checkpoint)!r}; give 'imagenet', or a file that ends in "
            ".safetensors, .pth or .keras."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    if path.suffix == ".keras":
        return describe({name: value.shape for name, value in read_keras(path).values.items()})
    return describe(shapes_of(read_state_dict(path)))


def _image_size(name, grid):
    """The smallest image that gives the grid, which is the usual one: 224, 384."""
    row = variant_of(name)
    if grid is None or not hasattr(row, "patch_size"):
        return IMAGENET_SIZE
    return tuple((side - 1) * row.stride + row.patch_size for side in grid)


def _save(model, output):
    """Saves through a temporary file, so that an earlier one survives a failure."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".convert-") as folder:
        temporary = pathlib.Path(folder) / output.name
        model.save(temporary)
        os.replace(temporary, output)
