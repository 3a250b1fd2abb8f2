import numpy as np
import pytest

import pit_keras
from pit_keras.explain.opened_networks import open_networks


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "mine.keras"
    model = pit_keras.create_model(
        "pit_ti", input_shape=(24, 32, 3), patch_size=4, stride=4, head_dim=8, depths=(1, 1, 1),
        classes=3,
    )  # fmt: skip
    model.save(path)
    return str(path)


def test_names_and_files_in_the_order_given(file):
    networks = open_networks(["pit_ti", file, "resnet50"], "none", (32, 48))

    assert [network.name for network in networks] == ["pit_ti", file, "resnet50"]
    assert [network.model.input_shape[1:3] for network in networks] == [
        (32, 48),
        (24, 32),
        (32, 48),
    ]
    assert [network.data.image_size for network in networks] == [(32, 48), (24, 32), (32, 48)]
    assert [network.weights for network in networks] == ["none", "its own", ""]


def test_weights_of_a_file_go_into_the_model_of_that_name(tmp_path):
    model = pit_keras.create_model("vit_ti", input_shape=(32, 32, 3))
    model.save(tmp_path / "vit.keras")

    (network,) = open_networks(["vit_ti"], str(tmp_path / "vit.keras"), (32, 32))

    assert network.weights == str(tmp_path / "vit.keras")
    for mine, theirs in zip(network.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_size_by_default_is_the_papers():
    (network,) = open_networks(["pit_ti"], "none")
    assert network.model.input_shape[1:3] == network.data.image_size == (224, 224)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["pit_ti"],), "pit_ti needs --weights: imagenet, a weights file, or none"),
        ((["pit_z"], "none"), "Unknown model 'pit_z'. Did you mean pit_"),
        ((["nowhere.keras"],), "nowhere.keras does not exist; give a run folder or a .keras file"),
        ((["runs/none"],), "runs/none does not exist"),
        ((["{folder}"],), "has no model.keras yet"),
        ((["resnet50"], "imagenet"), "--weights=imagenet is for a PiT or ViT by name"),
        ((["{file}"], "none"), "--weights=none is for a PiT or ViT by name"),
        ((["{file}"], None, (32, 32)), "--image_size is for models by name"),
        ((["pit_ti", "vit_ti"], "x.keras"), "is the file of one model; it is given for pit_ti and"),
        ((["pit_ti"], "x.keras"), "There is no weights file x.keras"),
        ((["pit_ti"], "imagnet"), "Unknown weights 'imagnet'"),
        ((["pit_ti"], "none", (8, 8)), "An image of 8 x 8 pixels is smaller than one patch"),
        ((["pit_ti", "pit_ti"], "none"), "one or more models, each once; got pit_ti, pit_ti"),
        (([],), "one or more models, each once; got none"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(arguments, message, file, tmp_path):
    names, *others = arguments
    names = [name.format(file=file, folder=tmp_path) for name in names]
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        open_networks(names, *others)
    assert message in str(refused.value)
