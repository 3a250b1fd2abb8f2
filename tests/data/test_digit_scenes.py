"""Generated scenes: honest splits, boxes around the ink, COCO's form, the same files again."""

import collections
import io
import itertools
import json
import pathlib

import forked
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from sklearn.datasets import load_digits, load_sample_images

from pit_keras.data.digit_scenes import (
    Look,
    draw,
    enlarge,
    lay_out,
    overlap,
    photograph_parts,
    scenes,
    write_digit_classes,
    write_digit_scenes,
)
from pit_keras.data.labelled_images import DIGITS_HELD_OUT, open_source

SIZE = (96, 128)
SCRIPT = pathlib.Path(__file__).parents[2] / "train/digit_scenes.py"


@pytest.fixture(scope="module")
def some_scenes():
    return list(itertools.islice(scenes("train", SIZE, 5), 120))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    write_digit_scenes(folder, {"train": 12, "val": 5}, SIZE, 3)
    return folder


def seen_box(mask):
    """Left, top, right, bottom of the pixels that are set, found one by one."""
    seen = [(x, y) for y, row in enumerate(mask) for x, value in enumerate(row) if value]
    columns, rows = zip(*seen, strict=True)
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


@pytest.mark.parametrize("grey", [0, 100, 128, 255])
def test_the_box_is_that_of_the_pixels_that_change_to_another_colour(grey):
    rng, below = np.random.default_rng(0), np.full((*SIZE, 3), grey)
    for scan in load_digits().images[:40] / 16:
        inks, boxes = lay_out(scan[None], SIZE, Look().sides, rng)
        image = draw(below, inks, boxes, rng)
        assert seen_box((image != below).any(axis=-1)) == tuple(boxes[0])
        left, top, right, bottom = boxes[0]
        [colour] = np.unique(image[top:bottom, left:right][inks[0] == 1], axis=0)
        assert abs(colour @ [0.299, 0.587, 0.114] - grey) >= 79.5  # rounded from 80 or more


def test_no_ink_is_outside_of_the_boxes():
    rng, below = np.random.default_rng(0), np.full((*SIZE, 3), 90.0)
    for scans in (load_digits().images[:120] / 16).reshape(20, 6, 8, 8):
        inks, boxes = lay_out(scans, SIZE, Look().sides, rng)
        image = draw(below, inks, boxes, rng)
        for left, top, right, bottom in boxes:
            image[top:bottom, left:right] = 90
        assert (image == 90).all()


def test_a_scan_is_enlarged_upright_and_smoothly():
    scan = np.zeros((8, 8))
    scan[1:7, 2] = scan[6, 2:6] = 1  # an L
    ink = enlarge(scan, 40)
    height, width = ink.shape
    assert 28 <= height <= 32  # 6 rows of 8, on 40 pixels, and their soft rims
    assert 18 <= width <= 22  # 4 columns
    assert ink[2, 3] == ink[-3, 3] == ink[-3, -5] == 1
    assert ink[: height // 2, width // 2 :].max() == 0
    assert len(np.unique(ink)) > 10


def test_boxes_lie_within_the_image_are_large_enough_and_hardly_overlap(some_scenes):
    counts = collections.Counter(len(scene.boxes) for scene in some_scenes)
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    tallest = 0
    for scene in some_scenes:
        left, top, right, bottom = scene.boxes.T
        assert min(*left, *top) >= 0
        assert max(right) <= SIZE[1]
        assert max(bottom) <= SIZE[0]
        assert (bottom - top >= 0.6 * 0.16 * 96).all()
        tallest = max(tallest, *(bottom - top))
        for (l1, t1, r1, b1), (l2, t2, r2, b2) in itertools.combinations(scene.boxes, 2):
            shared = len(set(range(l1, r1)) & set(range(l2, r2)))
            shared *= len(set(range(t1, b1)) & set(range(t2, b2)))
            assert shared <= 0.1 * min((r1 - l1) * (b1 - t1), (r2 - l2) * (b2 - t2))
    assert 0.35 * 96 < tallest < 0.43 * 96


def test_overlap_is_relative_to_the_smaller_box():
    assert overlap((0, 0, 10, 10), (8, 5, 10, 9)) == 1
    assert overlap((8, 8, 12, 10), (0, 0, 10, 10)) == 0.5
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert overlap((0, 0, 1, 1), (5, 5, 6, 6)) == 0


@pytest.mark.parametrize("split", [pytest.param("train", marks=pytest.mark.slow), "val"])
def test_every_scan_is_drawn_before_one_is_again(split):
    _, digits = load_digits(return_X_y=True)
    kept = digits[:-DIGITS_HELD_OUT] if split == "train" else digits[-DIGITS_HELD_OUT:]
    drawn, labels = [], []
    for scene in scenes(split, (64, 64), 0):
        drawn += scene.scans.tolist()
        labels += scene.labels.tolist()
        if len(drawn) >= 2 * len(kept):
            break
    assert sorted(drawn[: len(kept)]) == list(range(len(kept)))
    assert sorted(drawn[len(kept) : 2 * len(kept)]) == list(range(len(kept)))
    assert drawn[: len(kept)] != list(range(len(kept)))
    np.testing.assert_array_equal(labels, kept[drawn])
    every_digit = np.bincount(labels[: len(kept)], minlength=10)
    assert every_digit.min() > 0.09 * len(kept)
    assert every_digit.max() < 0.11 * len(kept)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_scans_drawn_are_those_of_the_split(split):
    digits = np.floor(load_digits().images * 255 / 16 + 0.5) / 255  # grey levels, as stored
    digits = digits[:-DIGITS_HELD_OUT] if split == "train" else digits[-DIGITS_HELD_OUT:]
    for scene in itertools.islice(scenes(split, (128, 128), 0, alone=True), 8):
        [[left, top, right, bottom]] = scene.boxes
        enlarged = [enlarge(digits[scene.scans[0]], side) for side in np.arange(20, 52, 0.4)]
        fitting = [ink for ink in enlarged if ink.shape == (bottom - top, right - left)]
        part = scene.image[top:bottom, left:right]
        assert any(len(np.unique(part[ink == 1], axis=0)) == 1 for ink in fitting)


def test_the_splits_see_different_parts_of_the_photographs():
    parts = photograph_parts()
    for whole, train, val in zip(
        load_sample_images().images, parts["train"], parts["val"], strict=True
    ):
        np.testing.assert_array_equal(train, whole[:, :480])
        np.testing.assert_array_equal(val, whole[:, 480:])


def test_a_lonely_digit_is_in_the_centre():
    for scene in itertools.islice(scenes("train", SIZE, 1, alone=True), 20):
        [[left, top, right, bottom]] = scene.boxes
        assert abs(left + right - SIZE[1]) <= 1
        assert abs(top + bottom - SIZE[0]) <= 1


def test_a_crowd_has_as_many_digits_and_sides_as_are_asked_for():
    look, counts, ratios = Look(most=2, sides=(0.5, 0.6)), set(), []
    for scene in itertools.islice(scenes("train", (64, 64), 1, look=look), 30):
        counts.add(len(scene.boxes))
        # A scan is cut to its ink, whose longer side is most of the scan's.
        ratios += list((scene.boxes[:, 2:] - scene.boxes[:, :2]).max(axis=1) / 64)
    assert counts == {1, 2}
    assert 0.3 < min(ratios) < max(ratios) < 0.8


def test_white_digits_are_white_and_brighter_than_what_is_below():
    for scene in itertools.islice(scenes("train", (64, 64), 1, look=Look(white=True)), 10):
        outside = np.ones((64, 64), bool)
        for left, top, right, bottom in scene.boxes:
            part = scene.image[top:bottom, left:right]
            assert (part == 255).all(axis=-1).any()
            outside[top:bottom, left:right] = False
        assert scene.image[outside].max() <= round(0.7 * 255)


@pytest.mark.parametrize(
    ("most", "sides", "sentence"),
    [
        (0, (0.1, 0.2), "0 digits of .* give 1 or more"),
        (1, (0.4, 0.2), "0 < smallest <= largest <= 1"),
        (9, (0.2, 0.4), "9 digits of 0.2 to 0.4 .* there is room"),
    ],
)
def test_crowds_that_cannot_be_are_refused(most, sides, sentence):
    with pytest.raises(ValueError, match=sentence):
        Look(most, sides)


def test_scenes_are_functions_of_split_size_and_seed(some_scenes):
    again = list(itertools.islice(scenes("train", SIZE, 5), 3))
    for scene, same in zip(some_scenes, again, strict=False):
        np.testing.assert_array_equal(scene.image, same.image)
        np.testing.assert_array_equal(scene.boxes, same.boxes)
    for other in (scenes("train", SIZE, 6), scenes("val", SIZE, 5)):
        assert not np.array_equal(next(other).image, again[0].image)


def test_the_written_set_is_cocos_form_and_holds_the_scenes(written):
    assert {path.name for path in written.iterdir()} == {
        "train", "train.json", "val", "val.json"
    }  # fmt: skip
    for split, count in (("train", 12), ("val", 5)):
        coco = COCO(written / f"{split}.json")
        categories = coco.loadCats(coco.getCatIds())
        assert [(c["id"], c["name"]) for c in categories] == [(i + 1, str(i)) for i in range(10)]
        assert sorted(path.name for path in (written / split).iterdir()) == [
            coco.imgs[number]["file_name"] for number in range(1, count + 1)
        ]
        for number, scene in zip(range(1, count + 1), scenes(split, SIZE, 3), strict=False):
            image = coco.imgs[number]
            assert (image["height"], image["width"]) == SIZE
            jpeg = io.BytesIO()
            Image.fromarray(scene.image).save(jpeg, "JPEG", quality=95)
            assert (written / split / image["file_name"]).read_bytes() == jpeg.getvalue()
            annotations = coco.loadAnns(coco.getAnnIds([number]))
            for annotation, box, label in zip(annotations, scene.boxes, scene.labels, strict=True):
                left, top, width, height = annotation["bbox"]
                assert [left, top, left + width, top + height] == box.tolist()
                assert annotation["area"] == width * height
                assert annotation["category_id"] == label + 1
                assert annotation["iscrowd"] == 0


def test_the_same_seed_writes_the_same_bytes(written, tmp_path):
    write_digit_scenes(tmp_path / "new", {"train": 12, "val": 5}, SIZE, 3)
    files = [path for path in written.rglob("*") if path.is_file()]
    assert len(files) == 12 + 5 + 2
    for path in files:
        again = tmp_path / "new" / path.relative_to(written)
        assert again.read_bytes() == path.read_bytes()


def test_class_folders_are_read_as_a_data_set(tmp_path):
    write_digit_classes(tmp_path, {"train": 100, "val": 80}, (64, 64), 0)
    source = open_source(f"folder:{tmp_path}")
    assert source.class_names == tuple("0123456789")
    assert source.sizes == {"train": 100, "val": 80}
    labels = {
        pathlib.Path(source.describe("val", number)).name: int(label)
        for number, label in enumerate(source.labels["val"])
    }
    numbered = zip(range(1, 81), scenes("val", (64, 64), 0, alone=True), strict=False)
    assert labels == {f"{number:06d}.jpg": scene.labels[0] for number, scene in numbered}


@pytest.mark.parametrize("write", [write_digit_scenes, write_digit_classes])
def test_a_folder_that_is_not_empty_is_left_alone(write, tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(FileExistsError, match="is not empty; give the images a folder of their"):
        write(tmp_path, {"train": 1, "val": 1}, SIZE, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("write", [write_digit_scenes, write_digit_classes])
def test_too_small_images_are_refused_and_leave_no_trace(write, tmp_path):
    with pytest.raises(ValueError, match=r"Digits of 9 pixels, .*; make them 10 or more"):
        write(tmp_path / "new", {"train": 1, "val": 1}, (59, 200), 0)
    assert not (tmp_path / "new").exists()


def test_the_script_writes_and_says_how_to_use_it(tmp_path):
    arguments = ["--train_images=3", "--val_images=2", "--seed=7", "--image_size=64,80"]
    arguments.append(f"--output_dir={tmp_path}/new")
    done = forked.run_script(SCRIPT, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Written: --dataset=coco:{tmp_path}/new\n"
    assert len(list((tmp_path / "new").rglob("*.jpg"))) == 5
    assert json.loads((tmp_path / "new/val.json").read_text())["images"][0]["width"] == 80
    again = forked.run_script(SCRIPT, *arguments)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/new is not empty")
