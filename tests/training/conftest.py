import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from whole_runs import eagerly, forget_last_epoch, train

from pit_keras.config.recipes import recipe
from pit_keras.create import create_model
from pit_keras.runs.run_folder import RunFolder


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory):
    """60 digits of three classes as PNG files, 20 a class, in a folder without a val part.

    They are large enough for an image to be made four times smaller, or more: XLA, which compiles
    what resizes others, would do so anew for each pipeline, and take longer than all the rest.
    """
    root = tmp_path_factory.mktemp("digits")
    data = load_digits()
    for label in range(3):
        (root / str(label)).mkdir()
        scans = data.images[data.target == label][:20]
        for index, scan in enumerate(scans):
            pixels = np.uint8(scan * 15.9).repeat(12, 0).repeat(12, 1)
            Image.fromarray(pixels).save(root / str(label) / f"{index:02d}.png")
    return root


@pytest.fixture(scope="session")
def make_tiny_config(digit_folder):
    """Makes the quickest run there is: two steps an epoch, two epochs, few weights."""

    def make():
        config = recipe("cutmix", "vit_ti")
        config.model.patch_size, config.model.stride, config.model.head_dim = 4, 4, 4
        config.model.depth = 1
        config.model.drop_path_rate = 0.1  # so that there are random decisions in the model too
        config.data.dataset = f"folder:{digit_folder}"
        config.data.image_size, config.data.crop_scale = (16, 16), (0.6, 1.0)
        config.training.batch_size = 27
        config.training.epochs = 2
        config.training.jit = "off"
        config.training.ema_decay = 0.9
        config.training.checkpoint_every_steps = 2  # in every epoch, however quick it is
        config.optimizer.name = "adamw"  # which is quicker than AdamP
        config.optimizer.warmup_epochs = 1.0
        config.optimizer.learning_rate = 0.05
        return config

    return make


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """The file of a network that knows the classes of `digit_folder`, though not well."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    sizes = {"patch_size": 4, "stride": 4, "head_dim": 4, "depth": 1}
    create_model("vit_ti", classes=3, input_shape=(16, 16, 3), **sizes).save(path)
    return path


@pytest.fixture
def eager_functions():
    with eagerly():
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory, make_tiny_config):
    """One whole run, shared by the tests that only look at it, or at a copy of it."""
    config = make_tiny_config()
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with eagerly():
        return config, folder, *train(config, folder)


@pytest.fixture
def unfinished(finished, make_tiny_config, tmp_path):
    """A copy of the finished run, as if it had been killed before its results were written."""
    folder = RunFolder(shutil.copytree(finished[1], tmp_path / "unfinished"))
    folder.results.unlink()
    return make_tiny_config(), folder


@pytest.fixture
def before_last_epoch(finished, make_tiny_config, tmp_path):
    """A copy of the finished run, as it was before its last epoch."""
    folder = RunFolder(shutil.copytree(finished[1], tmp_path / "before_last_epoch"))
    forget_last_epoch(folder.path)
    return make_tiny_config(), folder
