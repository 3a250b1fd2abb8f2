"""Small trained models, real images to compare them on, and one that is exported in every form."""

import io
import os
import pathlib
import typing

import filelock
import keras
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.export.agreement import real_images, take_sample
from pit_keras.export.export_report import Report, read_report
from pit_keras.export.exporting import export
from pit_keras.runs.trained_model import TrainedModel

# Beyond ASCII and with spaces, as names of folders may be.
CLASS_NAMES = ("cat", "Größe", "猫", "two words", *(f"class {index}" for index in range(6)))

OVERRIDES = {
    "pit": {"patch_size": 4, "stride": 2, "head_dim": 8, "depths": (1, 1, 1)},
    # As wide as the paper's: what int8 saves shows.
    "vit": {"patch_size": 8, "stride": 8, "depth": 1},
    "resnet50": {"base_width": 8, "depths": (1, 1, 1, 1)},
    "regnety": {
        "stage_widths": (8, 8, 16, 16),
        "depths": (1, 1, 1, 1),
        "group_width": 8,
        "stem_width": 8,
    },
}


@pytest.fixture(scope="session")
def photographs():
    return real_images()


@pytest.fixture(scope="session")
def make_trained():
    """Gives a small model, ready for images from files; each is made once, unless it is `fresh`.

    A fresh one is as it begins its training.
    """
    made = {}

    def make(name="vit_ti", image_size=(32, 32), fresh=False):
        key = name, image_size
        if fresh or key not in made:
            keras.utils.set_random_seed(0)
            model = pit_keras.create_model(
                name,
                input_shape=(*image_size, 3),
                classes=len(CLASS_NAMES),
                **OVERRIDES[name.partition("_")[0]],
            )
            if not fresh:
                _give_life(model)
            # Means and deviations of its own, which an export could not know by itself.
            data = DataConfig(image_size=image_size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
            trained = TrainedModel(model, CLASS_NAMES, data)
            if fresh:
                return trained
            made[key] = trained
        return made[key]

    return make


def _give_life(model):
    """Biases, scales and statistics such as training leaves them.

    At the start some are 0 and a unit may be for every image: scales of int8 are then too far apart
    for XNNPACK.
    """
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))


class Exported(typing.NamedTuple):
    """A model, the folder to which it was exported, and the report."""

    trained: TrainedModel
    folder: pathlib.Path
    report: Report


@pytest.fixture(scope="session")
def exported(make_trained, photographs, tmp_path_factory):
    """A distilled PiT for rectangular images, in every form that is written by default."""
    trained, root = make_trained("pit_ti_distilled", (40, 24)), tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # shared by the processes of a run, whose models are equal
    folder = root / "exported" / "new" / "folder"
    with filelock.FileLock(root / "exported.lock"):
        report = read_report(folder) or export(
            trained,
            folder,
            compare_on=take_sample(photographs, trained.data, "pieces"),
            calibrate_on=take_sample(list(photographs) * 4, trained.data, "more pieces"),
            license="CC-BY-4.0, für alle",
            force=True,
        )
    return Exported(trained, folder, report)


@pytest.fixture(scope="session")
def lying(photographs):
    """A JPEG that EXIF turns, and its pixels as it is shown: bytes, uint8 (H, W, 3)."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(photographs[0]).save(file, "JPEG", exif=exif)
    with Image.open(file) as picture:
        return file.getvalue(), np.asarray(ImageOps.exif_transpose(picture))
