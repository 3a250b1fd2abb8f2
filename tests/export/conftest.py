"""Small trained models and real images to export and compare them with."""

import pytest

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.export.agreement import real_images
from pit_keras.runs.trained_model import TrainedModel

# Beyond ASCII and with spaces, as names of folders may be.
CLASS_NAMES = ("cat", "Größe", "猫", "two words", *(f"class {index}" for index in range(6)))

OVERRIDES = {
    "pit": {"patch_size": 4, "stride": 2, "head_dim": 8, "depths": (1, 2, 1)},
    "vit": {"patch_size": 4, "stride": 4, "head_dim": 8, "depth": 2},
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
    """Makes a small model with random weights, ready for images from files."""

    def make(name="pit_ti", image_size=(32, 32)):
        overrides = OVERRIDES[name.partition("_")[0]]
        model = pit_keras.create_model(
            name, input_shape=(*image_size, 3), classes=len(CLASS_NAMES), **overrides
        )
        # Means and deviations of its own, which an export could not know by itself.
        data = DataConfig(image_size=image_size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
        return TrainedModel(model, CLASS_NAMES, data)

    return make
