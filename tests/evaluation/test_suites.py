"""Suites by name: each gives its columns, and one that cannot run does not stop the others."""

import dataclasses
import fractions

import numpy as np
import pytest
from robustness_data import imagenet_a_synsets, linear_model, write_challenge, write_imagenet_a

from pit_keras import imagenet
from pit_keras.config.fields import DataConfig
from pit_keras.evaluation.suites import SUITES, SuiteSettings, checked_suites, run_suites
from pit_keras.runs.trained_model import TrainedModel

DIGITS = tuple(map(str, range(10)))


@pytest.fixture(scope="module")
def on_digits():
    """A model of the digits, whose images are of 8 x 8 pixels."""
    data = DataConfig(dataset="digits", image_size=(8, 8), eval_crop=1.0)
    return TrainedModel(linear_model(), DIGITS, data)


def test_names_come_in_the_papers_order_each_once():
    assert list(SUITES) == ["standard", "occlusion", "imagenet_a", "backgrounds", "fgsm"]
    assert checked_suites(["fgsm", "standard", "fgsm"]) == ("standard", "fgsm")
    for wrong in ("fgms", "", "imagenet-a"):
        with pytest.raises(ValueError, match=f"Unknown suite '{wrong}'; known are standard, occl"):
            checked_suites(["standard", wrong])


def test_each_suite_gives_its_columns(on_digits, tmp_path):
    settings = SuiteSettings(
        occlusion_sizes=(2, 4),
        epsilons=(fractions.Fraction(1, 255), fractions.Fraction(8, 255)),
        progress=False,
    )
    suites = ["standard", "occlusion", "fgsm"]
    accuracies, reasons = run_suites(on_digits, suites, settings)
    assert list(accuracies) == ["standard", "occlusion_2", "occlusion", "fgsm_1/255", "fgsm"]
    assert not reasons
    assert accuracies["fgsm"] < accuracies["fgsm_1/255"] < accuracies["standard"]

    fewer = dataclasses.replace(settings, occlusion_sizes=(4,), epsilons=settings.epsilons[1:])
    for change in ({"split": "all"}, {"crop": 0.5}):
        others, _ = run_suites(on_digits, suites, dataclasses.replace(fewer, **change))
        assert list(others) == suites
        assert all(accuracy != accuracies[name] for name, accuracy in others.items()), change


def test_suites_with_data_of_their_own(tmp_path):
    write_imagenet_a(tmp_path / "imagenet-a", imagenet_a_synsets(), images=1)
    write_challenge(tmp_path / "bg_challenge", foregrounds=1, backgrounds=1)
    data = DataConfig(image_size=(8, 8), eval_crop=1.0)
    trained = TrainedModel(linear_model(1000), imagenet.class_names(), data)
    settings = SuiteSettings(
        imagenet_a=str(tmp_path / "imagenet-a"),
        backgrounds=str(tmp_path / "bg_challenge"),
        progress=False,
    )
    with pytest.warns(UserWarning, match="ImageNet-A has 7500 images"):
        accuracies, reasons = run_suites(trained, ["backgrounds", "imagenet_a"], settings)
    assert not reasons
    assert list(accuracies) == [
        *("imagenet_a", "imagenet_a_all_classes"),
        *("backgrounds", "backgrounds_original", "backgrounds_mixed_same"),
        "backgrounds_mixed_rand",
    ]


def test_what_cannot_run_is_explained_and_the_others_run(on_digits, tmp_path):
    settings = SuiteSettings(occlusion_sizes=(9,), data_dir=str(tmp_path), progress=False)
    accuracies, reasons = run_suites(on_digits, list(SUITES), settings)
    assert list(accuracies) == ["standard", "fgsm"]
    assert list(reasons) == ["occlusion", "imagenet_a", "backgrounds"]
    assert "9 x 9 pixels does not fit into images of 8 x 8" in reasons["occlusion"]
    assert "imagenet-a.tar" in reasons["imagenet_a"]
    assert "github.com/MadryLab/backgrounds_challenge" in reasons["backgrounds"]


def test_a_data_set_of_other_classes_or_none_stops_its_suites_only(on_digits, tmp_path):
    trained = dataclasses.replace(on_digits, class_names=tuple("abcdefghij"))
    accuracies, reasons = run_suites(trained, ["standard", "fgsm"], SuiteSettings(progress=False))
    assert not accuracies
    assert "digits has '0', '1', '2', '3', '4' and 5 more" in reasons["standard"]
    assert reasons["fgsm"] == reasons["standard"]
    settings = SuiteSettings(dataset=f"folder:{tmp_path}/none", progress=False)
    _, reasons = run_suites(on_digits, ["standard"], settings)
    assert "There is no folder" in reasons["standard"]


def test_an_attack_that_does_not_raise_the_loss_is_told(on_digits):
    model = linear_model()
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([np.zeros_like(kernel), bias])
    deaf = dataclasses.replace(on_digits, model=model)
    with pytest.warns(UserWarning, match="The attack fgsm did not raise the loss"):
        accuracies, _ = run_suites(deaf, ["standard", "fgsm"], SuiteSettings(progress=False))
    assert accuracies["fgsm"] == accuracies["standard"]
