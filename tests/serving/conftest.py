"""Small models with random weights in files, and pictures to show them."""

import pytest
from servers import encoded
from tolerances import terms_along

import pit_keras
from pit_keras.export.agreement import real_images
from pit_keras.runs.trained_model import load_trained_model

CLASS_NAMES = ("cat", "Größe", "猫", "<b>two words</b>", *(f"class {index}" for index in range(6)))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """`model.keras`, a distilled PiT of three stages for images of 32 x 40, and `classes.txt`."""
    folder = tmp_path_factory.mktemp("model")
    model = pit_keras.create_model(
        "pit_ti_distilled",
        input_shape=(32, 40, 3),
        classes=len(CLASS_NAMES),
        patch_size=4,
        stride=2,
        head_dim=8,
        depths=(1, 2, 1),
    )
    model.save(folder / "model.keras")
    (folder / "classes.txt").write_text("\n".join(CLASS_NAMES))
    return folder


@pytest.fixture(scope="session")
def trained(model_folder):
    return load_trained_model(model_folder / "model.keras", CLASS_NAMES)


@pytest.fixture(scope="session")
def smallest_model(tmp_path_factory):
    """A file of one block, for tests of all but its answers."""
    path = tmp_path_factory.mktemp("smallest") / "model.keras"
    settings = {"patch_size": 8, "stride": 8, "head_dim": 4, "depth": 1, "classes": 2}
    pit_keras.create_model("vit_ti", input_shape=(16, 16, 3), **settings).save(path)
    return path


@pytest.fixture(scope="session")
def roundings(trained):
    """How many come between an image and the logits of `trained`, or an attention map."""
    return terms_along(trained.model)


@pytest.fixture(scope="session")
def photographs():
    return real_images()


@pytest.fixture(scope="session")
def files(photographs):
    """The photographs as bytes of files, six JPEG and two PNG."""
    return [
        encoded(image, "PNG" if index % 4 == 3 else "JPEG")
        for index, image in enumerate(photographs)
    ]
