"""ImageNet-A scored over its own 200 classes, from a folder and from TFDS."""

import shutil

import numpy as np
import pytest
from robustness_data import (
    DATA,
    MEAN,
    STD,
    imagenet_a_synsets,
    imagenet_model,
    linear_logits,
    store_imagenet_a,
    write_imagenet_a,
)

from pit_keras.evaluation.imagenet_a import NUMBERS, evaluate_imagenet_a, open_imagenet_a
from pit_keras.imagenet import synsets
from pit_keras.runs.trained_model import TrainedModel

pytestmark = pytest.mark.filterwarnings("ignore:ImageNet-A has 7500 images")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder and a TFDS folder of the same images: 200 classes with two images each."""
    root = tmp_path_factory.mktemp("imagenet_a")
    pixels, classes = write_imagenet_a(root / "folder", imagenet_a_synsets())
    store_imagenet_a(root / "tfds", pixels, classes)
    return root


def knowing_model(pixels, classes):
    """A model of ImageNet's classes that has seen the images, and is right about some."""
    trained = imagenet_model()
    kernel, bias = trained.model.layers[-1].get_weights()
    for image, place in zip(pixels, classes, strict=True):
        kernel[:, place] += ((image / 255 - MEAN) / STD).ravel() * 0.008
    trained.model.layers[-1].set_weights([kernel, bias])
    return trained


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The images of `data` again, and their places among ImageNet's classes."""
    return write_imagenet_a(tmp_path_factory.mktemp("again"), imagenet_a_synsets())


@pytest.fixture(scope="module")
def trained(images):
    return knowing_model(*images)


@pytest.fixture(scope="module")
def expected(images, trained):
    """Accuracies by the definition: over the 200 classes, and over all 1,000."""
    pixels, classes = images
    logits = linear_logits(trained.model, (pixels / 255 - MEAN) / STD)
    own = sorted(set(classes))
    over_own = over_all = 0
    for row, true in zip(logits, classes, strict=True):
        best = max(own, key=lambda place: row[place])
        over_own += best == true
        over_all += row.argmax() == true
    assert 0 < over_all < over_own < len(classes)
    return {
        "imagenet_a": over_own / len(classes),
        "imagenet_a_all_classes": over_all / len(classes),
        "images": len(classes),
    }


def test_the_200_classes_are_those_of_the_authors():
    """Whose `eval.py` numbers them among ImageNet's; here the ends of that list, and its sum."""
    numbers = list(NUMBERS)
    assert len(set(numbers)) == 200
    assert numbers == sorted(numbers)
    assert numbers[:12] == [6, 11, 13, 15, 17, 22, 23, 27, 30, 37, 39, 42]
    assert numbers[-12:] == [954, 956, 957, 959, 971, 972, 980, 981, 984, 986, 987, 988]
    assert sum(numbers) == 102_178


@pytest.mark.parametrize("batch_size", [7, 64])
def test_a_folder_is_scored_over_its_200_classes(data, trained, expected, batch_size):
    where = str(data / "folder")
    measured = evaluate_imagenet_a(trained, where, data=DATA, batch_size=batch_size, progress=False)
    assert measured == pytest.approx(expected, abs=1e-12)


def test_tfds_with_its_thousand_labels_gives_the_same(data, trained, expected):
    measured = evaluate_imagenet_a(trained, data=DATA, data_dir=str(data / "tfds"), progress=False)
    assert measured == pytest.approx(expected, abs=1e-12)


def test_classes_are_found_by_name_whatever_their_order_and_as_wordnets_ids(
    data, trained, expected
):
    """The logits of a model that was trained on other folders."""
    order = np.random.default_rng(7).permutation(1000)
    shuffled = imagenet_model()
    kernel, bias = trained.model.layers[-1].get_weights()
    shuffled.model.layers[-1].set_weights([kernel[:, order], bias[order]])
    names = tuple(synsets()[place][0] for place in order)
    other = TrainedModel(shuffled.model, names, DATA)
    measured = evaluate_imagenet_a(other, str(data / "folder"), data=DATA, progress=False)
    assert measured == pytest.approx(expected, abs=1e-12)


def test_labels_of_tfds_are_those_that_occur(data):
    source, labels = open_imagenet_a("tfds", str(data / "tfds"))
    assert [source.class_names[label] for label in labels] == imagenet_a_synsets()
    assert source.sizes == {"train": 0, "val": 400}


def test_another_number_of_images_is_told(data):
    with pytest.warns(UserWarning, match=r"ImageNet-A has 7500 images, and .*folder 400\."):
        open_imagenet_a(str(data / "folder"))


def test_a_data_set_with_fewer_or_more_classes_is_refused(data, tmp_path):
    """Half of it would be easier; all of ImageNet's classes would be the known mistake."""
    half = shutil.copytree(data / "folder", tmp_path / "half")
    shutil.rmtree(half / imagenet_a_synsets()[0])
    with pytest.raises(ValueError, match=r"half has 199 classes instead of 200\. .*tar"):
        open_imagenet_a(str(half))
    write_imagenet_a(tmp_path / "more", [synset for synset, _ in synsets()[:201]], images=1)
    with pytest.raises(ValueError, match="more has 201 classes instead of 200"):
        open_imagenet_a(str(tmp_path / "more"))


def test_two_hundred_other_classes_are_refused(tmp_path):
    """Such as ImageNet's first ones: an easier test under the same name."""
    write_imagenet_a(tmp_path / "first", [synset for synset, _ in synsets()[:200]], images=1)
    with pytest.raises(ValueError, match=r"first has '.*', which ImageNet-A lacks"):
        open_imagenet_a(str(tmp_path / "first"))


def test_one_that_is_not_there_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*none\. .*imagenet-a\.tar"):
        open_imagenet_a(str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"not prepared in .* `tfds build imagenet_a"):
        open_imagenet_a("tfds", str(tmp_path))
    with pytest.raises(ValueError, match=r"holds no class folders.*imagenet-a\.tar"):
        open_imagenet_a(str(tmp_path))


def test_classes_must_be_the_data_sets_own_and_among_the_models(data, tmp_path):
    folder = shutil.copytree(data / "folder", tmp_path / "renamed")
    (folder / imagenet_a_synsets()[0]).rename(folder / "n99999999")
    with pytest.raises(ValueError, match="renamed has 'n99999999', which"):
        evaluate_imagenet_a(imagenet_model(), str(folder), data=DATA, progress=False)
    digits = TrainedModel(imagenet_model().model, tuple(map(str, range(1000))), DATA)
    with pytest.raises(ValueError, match=f"lacks ImageNet-A's class '{imagenet_a_synsets()[0]}'"):
        evaluate_imagenet_a(digits, str(data / "folder"), data=DATA, progress=False)
