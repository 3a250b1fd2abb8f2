import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pit_keras.config.recipes import recipe


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory):
    """120 digits of three classes as PNG files, 40 a class, in a folder without a val part."""
    root = tmp_path_factory.mktemp("digits")
    data = load_digits()
    for label in range(3):
        (root / str(label)).mkdir()
        scans = data.images[data.target == label][:40]
        for index, scan in enumerate(scans):
            pixels = np.uint8(scan * 15.9).repeat(3, 0).repeat(3, 1)
            Image.fromarray(pixels).save(root / str(label) / f"{index:02d}.png")
    return root


@pytest.fixture(scope="session")
def make_tiny_config(digit_folder):
    """Makes the quickest run there is: five steps an epoch, three epochs, few weights."""

    def make():
        config = recipe("cutmix", "pit_ti")
        config.model.patch_size, config.model.stride, config.model.head_dim = 4, 4, 4
        config.model.depths = (1, 1, 1)
        config.model.drop_path_rate = 0.1  # so that there are random decisions in the model too
        config.data.dataset = f"folder:{digit_folder}"
        config.data.image_size = (24, 24)
        config.training.batch_size = 20
        config.training.epochs = 3
        config.training.jit = "off"
        config.training.checkpoint_every_steps = 5  # in every epoch, however quick it is
        config.optimizer.warmup_epochs = 1.0
        config.optimizer.learning_rate = 0.05
        return config

    return make
