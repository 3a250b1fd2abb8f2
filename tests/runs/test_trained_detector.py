"""A detector from its run folder, and what it finds in images of any size."""

import dataclasses
import shutil

import numpy as np
import pytest
from detectors import IMAGE_SIZE, small_detector
from PIL import Image
from tolerances import assert_close

from pit_keras.config.fields import Config, DataConfig
from pit_keras.create import create_model
from pit_keras.runs.found_objects import FoundObject, found_objects
from pit_keras.runs.run_folder import RunFolder
from pit_keras.runs.trained_detector import (
    TrainedDetector,
    as_detector,
    detect,
    load_any,
    load_trained_detector,
)
from pit_keras.runs.trained_model import TrainedModel, load_trained_model

NAMES = ("red", "grün", "deep blue")
DATA = DataConfig(image_size=IMAGE_SIZE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "colours")
    folder.create(Config(data=DATA), NAMES)
    small_detector().save(folder.model)
    return folder


@pytest.fixture(scope="module")
def trained(run):
    return load_trained_detector(run.path)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "model.keras"
    sizes = {"input_shape": (32, 32, 3), "patch_size": 8, "stride": 8, "head_dim": 8}
    create_model("vit_ti", depth=1, classes=10, **sizes).save(path)
    return path


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def test_a_run_folder_and_its_model_file_are_the_same_detector(run, trained):
    for path in (run.path, str(run.model)):
        again = load_trained_detector(path)
        assert (again.class_names, again.data, again.folder) == (NAMES, DATA, run.path)
    np.testing.assert_array_equal(
        again.answers(random_image(40, 50))["boxes"],
        TrainedDetector(small_detector(), NAMES, DATA).answers(random_image(40, 50))["boxes"],
    )


def test_a_file_elsewhere_has_numbers_for_names_and_the_papers_image_size(run, tmp_path):
    file = shutil.copy(run.model, tmp_path / "alone.keras")
    alone = load_trained_detector(file)
    assert alone.class_names == ("class 0", "class 1", "class 2")
    assert alone.data == DataConfig(image_size=(400, 600))
    assert alone.folder is None
    with pytest.raises(ValueError, match="There are 2 class names for the 3 classes of"):
        as_detector(alone.model, file, None, ["a", "b"])
    named = as_detector(alone.model, file, run, ["a", "b", "c"])
    assert named.class_names == ("a", "b", "c")


def test_a_classifier_is_no_detector_and_a_detector_no_classifier(run, classifier):
    with pytest.raises(ValueError, match=r"model\.keras is not a detector such as detr_pit_s"):
        load_trained_detector(classifier)
    with pytest.raises(ValueError, match=r"model\.keras is a detector; a classifier is wanted"):
        load_trained_model(run.path)
    assert isinstance(load_any(classifier), TrainedModel)
    assert isinstance(load_any(run.path), TrainedDetector)


def test_boxes_are_in_pixels_of_the_image_that_is_given(trained):
    colour = np.array([200, 30, 90], np.uint8)
    small, large = (np.tile(colour, (*size, 1)) for size in ((20, 30), (60, 90)))
    few, many = trained.detections_of([small, large], threshold=0)
    assert len(few) == len(many) == 10
    for one, three in zip(few, many, strict=True):
        assert (one.name, one.score) == (three.name, three.score)
        # The same shares of an image, times its size, less half a width.
        assert_close(three.box, 3 * np.array(one.box), roundings=4)


def test_images_do_not_depend_on_each_other_and_have_any_size(trained):
    images = [random_image(*size, 7) for size in ((20, 80), (80, 20), (33, 33), (1, 1))]
    together = trained.detections_of(images, threshold=0.1)
    assert together == [trained.detections_of([image], threshold=0.1)[0] for image in images]
    for image, objects in zip(images, together, strict=True):
        height, width = image.shape[:2]
        for each in objects:
            left, top, right, bottom = each.box
            assert 0 <= left <= right <= width
            assert 0 <= top <= bottom <= height
            assert each.name == NAMES[each.label]


def test_a_detector_of_one_size_answers_as_one_of_all_sizes_there(trained):
    fixed = small_detector((*IMAGE_SIZE, 3))
    fixed.set_weights(trained.model.get_weights())
    fixed = dataclasses.replace(trained, model=fixed)
    assert (fixed.fixed_size, trained.fixed_size) == (IMAGE_SIZE, None)
    lying, upright = random_image(30, 70), random_image(70, 30)
    expected, answers = trained.answers(lying), fixed.answers(lying)
    # All layers' sums, at most, lie on the path to a box.
    roundings = sum(np.prod(w.shape[:-1]) for w in fixed.model.weights if len(w.shape) > 1)
    assert_close(answers["boxes"], expected["boxes"], roundings=roundings)
    assert_close(answers["scores"], expected["scores"], roundings=roundings)
    # Upright images are filled up to the lying size, in which there is less of them to be seen.
    answers = fixed.answers(upright)["boxes"]
    assert np.isfinite(answers).all()
    assert np.abs(answers - trained.answers(upright)["boxes"]).max() > 0.1


def test_a_file_of_one_size_says_so(tmp_path):
    small_detector((48, 32, 3)).save(tmp_path / "fixed.keras")
    trained = load_trained_detector(tmp_path / "fixed.keras")
    assert trained.fixed_size == (48, 32)
    assert trained.data.image_size == (32, 48)  # short and long


def test_objects_are_those_above_the_threshold_surest_first_and_within_the_image():
    answers = {
        "boxes": np.array([[-5, 2, 9, 30], [1, 1, 2, 2], [0, -3, 50, 4], [3, 3, 4, 4]], "float32"),
        "scores": np.array([0.5, 0.25, 0.75, 0.4999], "float32"),
        "labels": np.array([2, 0, 1, 1], "int32"),
    }
    assert found_objects(answers, (20, 40), NAMES, threshold=0.5) == [
        FoundObject("grün", 0.75, (0, 0, 40, 4), 1),
        FoundObject("deep blue", 0.5, (0, 2, 9, 20), 2),
    ]
    assert found_objects(answers, (20, 40), NAMES, threshold=0.8) == []


def test_files_are_all_read_before_the_first_is_looked_at(trained, tmp_path):
    Image.fromarray(random_image(20, 30)).save(tmp_path / "good.png")
    (found,) = detect(trained, [tmp_path / "good.png"], threshold=0)
    assert found == trained.detections_of([random_image(20, 30)], threshold=0)[0]
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"bad\.png cannot be read as a JPEG or PNG image"):
        detect(trained, [tmp_path / "good.png", tmp_path / "bad.png"])
    with pytest.raises(ValueError, match="There are no images to look at"):
        detect(trained, [])
