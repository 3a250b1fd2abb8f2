"""The backgrounds challenge by its definition: each foreground before each background."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from robustness_data import (
    DATA,
    MEAN,
    NINE,
    SIDE,
    STD,
    VARIATIONS,
    imagenet_model,
    linear_logits,
    write_challenge,
)

from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.evaluation.backgrounds import (
    challenge_accuracy,
    evaluate_backgrounds,
    open_challenge,
)
from pit_keras.runs.trained_model import TrainedModel

ALL_PARTS = ("fg_mask", "only_bg_t", *VARIATIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine classes with two foregrounds and two backgrounds each, not to be changed."""
    path = tmp_path_factory.mktemp("challenge") / "bg_challenge"
    write_challenge(path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(folder, tmp_path / "bg_challenge")


@pytest.fixture(scope="module")
def trained(folder):
    """A model that sees in most foregrounds their own class before some or all backgrounds.

    The logit of a class that maps to a foreground's own is raised along that photograph.
    """
    trained = imagenet_model()
    mapping = read_mapping(folder)
    kernel, bias = trained.model.layers[-1].get_weights()
    for label, name in enumerate(NINE):
        logit = list(mapping).index(label)
        photograph = normalised(read(folder / "original/val" / name / "fg_0.JPEG"))
        kernel[:, logit] = photograph.ravel() * 0.05
    trained.model.layers[-1].set_weights([kernel, bias])
    return trained


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def read_mapping(folder):
    mapping = json.loads((folder / "in_to_in9.json").read_text())
    return np.array([mapping[str(number)] for number in range(1000)])


def normalised(pixels):
    return (pixels / 255 - MEAN) / STD


def linear(model):
    return lambda images: linear_logits(model, normalised(images))


def by_definition(logits_of, folder):
    """The share of foregrounds recognised before all backgrounds, and before each of them.

    `logits_of` takes images of the challenge, (N, 8, 8, 3) in 0..255.
    """
    mapping = read_mapping(folder)
    backgrounds = [read(path) for path in sorted(folder.glob("only_bg_t/val/*/*.JPEG"))]
    recognised = []
    for label, name in enumerate(NINE):
        for mask_file in sorted((folder / "fg_mask/val" / name).iterdir()):
            mask = np.load(mask_file)[..., None]
            image = read(folder / "original/val" / name / f"{mask_file.stem}.JPEG")
            combined = np.stack([(1 - mask) * other + mask * image for other in backgrounds])
            answers = mapping[logits_of(combined).argmax(axis=1)]
            recognised.append(answers == label)
    return np.mean([row.all() for row in recognised]), np.mean(recognised)


def test_a_foreground_counts_if_it_is_recognised_before_every_background(folder, trained):
    challenge = open_challenge(folder)
    assert (len(challenge.foregrounds), len(challenge.backgrounds)) == (18, 18)
    before_all, before_each = by_definition(linear(trained.model), folder)
    assert 0 < before_all < before_each < 1
    for batch_size in (1, 7, 64):
        measured = challenge_accuracy(trained.model, challenge, DATA, batch_size)
        assert measured == pytest.approx(before_all, abs=1e-12)


def test_an_answer_that_maps_to_no_class_is_wrong(folder):
    """Also if the model never gives another one."""
    model = imagenet_model().model
    kernel, bias = model.layers[-1].get_weights()
    bias[list(read_mapping(folder)).index(-1)] = 1e6
    model.layers[-1].set_weights([kernel, bias])
    assert challenge_accuracy(model, open_challenge(folder), DATA) == 0


def test_a_model_of_one_class_recognises_its_own_before_all(folder):
    model = imagenet_model().model
    kernel, bias = model.layers[-1].get_weights()
    bias[list(read_mapping(folder)).index(4)] = 1e6
    model.layers[-1].set_weights([kernel, bias])
    measured = challenge_accuracy(model, open_challenge(folder), DATA)
    assert measured == pytest.approx(1 / 9, abs=1e-12)


def test_the_variations_that_are_there_are_measured_too(folder, trained):
    mapping, expected = read_mapping(folder), {}
    for variation in VARIATIONS:
        right = [
            mapping[linear_logits(trained.model, normalised(read(path))[None]).argmax()] == label
            for label, name in enumerate(NINE)
            for path in (folder / variation / "val" / name).iterdir()
        ]
        expected[f"backgrounds_{variation}"] = np.mean(right)
    expected["backgrounds"] = by_definition(linear(trained.model), folder)[0]
    cropping = dataclasses.replace(DATA, eval_crop=0.5)  # the challenge is seen whole all the same
    measured = evaluate_backgrounds(
        dataclasses.replace(trained, data=cropping), folder, batch_size=5, progress=False
    )
    assert measured == pytest.approx(expected, abs=1e-12)
    assert expected["backgrounds_original"] > 0


def test_the_mapping_may_lie_beside_the_folder(copy, trained):
    expected = challenge_accuracy(trained.model, open_challenge(copy), DATA)
    (copy / "in_to_in9.json").rename(copy.parent / "in_to_in9.json")
    assert challenge_accuracy(trained.model, open_challenge(copy), DATA) == expected


def test_a_model_of_another_size_sees_the_whole_image_enlarged(folder, trained):
    inputs = keras.Input((2 * SIDE, 2 * SIDE, 3))
    model = keras.Sequential([inputs, keras.layers.AveragePooling2D(2), *trained.model.layers])
    data = dataclasses.replace(DATA, image_size=(2 * SIDE, 2 * SIDE))

    def logits_of(images):
        enlarged = resize_and_crop(images, data.image_size, 1.0).numpy()
        return model(normalised(enlarged)).numpy()

    before_all, before_each = by_definition(logits_of, folder)
    assert 0 < before_all < before_each < 1
    measured = challenge_accuracy(model, open_challenge(folder), data)
    assert measured == pytest.approx(before_all, abs=1e-12)


def remove(part):
    return lambda folder: shutil.rmtree(folder / part)


def one_class_less(folder):
    for part in ("fg_mask", "original", "only_bg_t"):
        shutil.rmtree(folder / part / "val/03_reptile")


def rename(name, other, parts):
    def change(folder):
        for part in parts:
            (folder / part / "val" / name).rename(folder / part / "val" / other)

    return change


def write(name, contents):
    return lambda folder: (folder / name).write_bytes(contents)


def pickled(folder):
    np.save(folder / "fg_mask/val/00_dog/fg_0.npy", np.array([{}]), allow_pickle=True)


def archived(folder):
    mask = folder / "fg_mask/val/00_dog/fg_0.npy"
    with mask.open("r+b") as file:
        np.savez(file, np.load(mask))


def grey_mask(folder):
    np.save(folder / "fg_mask/val/00_dog/fg_0.npy", np.full((SIDE, SIDE), 0.5))


def small_mask(folder):
    np.save(folder / "fg_mask/val/00_dog/fg_0.npy", np.ones((SIDE, 4), bool))


def large_background(folder):
    path = folder / "only_bg_t/val/04_carnivore/fg_0.JPEG"
    Image.new("RGB", (9, 9)).save(path, format="PNG")


def short_mapping(folder):
    mapping = json.loads((folder / "in_to_in9.json").read_text())
    del mapping["999"]
    (folder / "in_to_in9.json").write_text(json.dumps(mapping))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("fg_mask"), r"no folder .*fg_mask/val\. .*MadryLab/backgrounds_challenge"),
        (remove("only_bg_t"), r"no folder .*only_bg_t/val\. "),
        (
            remove("original/val/02_wheeled vehicle"),
            "original/val must hold the 9 class folders .*; '02_wheeled vehicle' is missing",
        ),
        (one_class_less, "fg_mask/val must hold the 9 class folders .* '03_reptile' is missing"),
        (
            rename("00_dog", "zz_dog", ALL_PARTS),
            "fg_mask/val must hold the 9 .* '00_dog' is missing",
        ),
        (rename("08_fish", "8_fish", ("original",)), "original/val must .* '08_fish' is missing"),
        (
            rename("00_dog", "zz_dog", ("mixed_same",)),
            "mixed_same/val must hold the 9 .* '00_dog' is missing",
        ),
        (
            lambda folder: (folder / "only_bg_t/val/000").mkdir(),
            "only_bg_t/val must hold the 9 class folders .* '000' is not one",
        ),
        (
            lambda folder: (folder / "original/val/08_fish/fg_1.JPEG").unlink(),
            "There is no .*08_fish/fg_1.JPEG for .*fg_1.npy",
        ),
        (lambda folder: (folder / "in_to_in9.json").unlink(), "There is no .*in_to_in9.json or"),
        (write("in_to_in9.json", b"{"), "in_to_in9.json does not map ImageNet's classes 0 to 999"),
        (write("in_to_in9.json", b"[1]"), "does not map ImageNet's classes 0 to 999"),
        (short_mapping, "does not map ImageNet's classes 0 to 999"),
        (pickled, "00_dog/fg_0.npy cannot be read as an array"),
        (write("fg_mask/val/00_dog/fg_0.npy", b"x"), "fg_0.npy cannot be read as an array"),
        (grey_mask, "fg_0.npy must hold 8 x 8 numbers, each 0 or 1"),
        (small_mask, "fg_0.npy must hold 8 x 8 numbers, each 0 or 1"),
        (large_background, "04_carnivore/fg_0.JPEG has the size \\(9, 9\\)"),
        (write("only_bg_t/val/00_dog/fg_1.JPEG", b"x"), "00_dog/fg_1.JPEG cannot be read as a"),
        (remove("mixed_rand/val/05_insect"), "mixed_rand/val must .* '05_insect' is missing"),
        (archived, "00_dog/fg_0.npy cannot be read as an array"),
    ],
)
def test_what_is_not_as_published_is_refused_by_name(copy, trained, change, message):
    change(copy)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        evaluate_backgrounds(trained, copy, progress=False)


def test_only_models_of_imagenets_classes_can_be_mapped(folder, trained):
    names = (*trained.class_names[1:], trained.class_names[0])
    other = TrainedModel(trained.model, names, DATA)
    with pytest.raises(ValueError, match="model of ImageNet's 1000 classes"):
        evaluate_backgrounds(other, folder, progress=False)
