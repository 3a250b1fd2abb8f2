import json
import logging
import os

import numpy as np
import pytest
from coco_form import change_json, write_coco_form
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tolerances import assert_close

from pit_keras.data.coco import open_detection_source
from pit_keras.data.labelled_images import open_source


@pytest.fixture
def root(tmp_path):
    """A data set of 8 and 5 images, to be changed."""
    return write_coco_form(tmp_path / "scenes")


def elements(source, split="train"):
    return {int(e["id"]): e for e in source.scan(split).as_numpy_iterator()}


def read(root, split):
    return json.loads((root / f"{split}.json").read_text())


def one_image(root, annotations, width=64, height=48):
    """Makes the training split one image with these annotations; returns its trained boxes."""

    def change(content):
        image = content["images"][0]
        content["images"] = [{**image, "width": width, "height": height}]
        content["annotations"] = [{"image_id": image["id"], **a} for a in annotations]

    change_json(root, "train", change)
    (element,) = elements(open_detection_source(f"coco:{root}")).values()
    return element["boxes"], element["labels"]


def test_boxes_and_labels_are_those_of_the_file(root):
    source = open_detection_source(f"coco:{root}")
    assert source.name == f"coco:{root}"
    assert source.sizes == {"train": 8, "val": 5}
    assert source.class_names == ("red", "green", "blue")
    assert source.category_ids == (2, 5, 11)
    assert source.is_encoded
    for split in ("train", "val"):
        content = read(root, split)
        found = elements(source, split)
        assert set(found) == set(range(source.sizes[split]))
        for number, element in found.items():
            image = content["images"][number]
            assert source.image_id(split, number) == image["id"]
            path = str(root / split / image["file_name"])
            assert source.describe(split, number) == element["image"].decode() == path
            assert source.load(path).shape == (image["height"], image["width"], 3)
            own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            corners = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in own)]
            np.testing.assert_array_equal(element["boxes"], np.float32(corners))
            labels = [(2, 5, 11).index(a["category_id"]) for a in own]
            np.testing.assert_array_equal(element["labels"], labels)
            assert element["labels"].dtype == np.int64


def test_the_layout_of_coco_itself_is_read(root):
    expected = elements(open_detection_source(f"coco:{root}"))
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / f"{split}.json").rename(root / "annotations" / f"instances_{split}2017.json")
        (root / split).rename(root / f"{split}2017")
    source = open_detection_source(f"coco:{root}")
    assert source.describe("val", 0) == str(root / "val2017" / "000.jpg")
    for number, element in elements(source).items():
        np.testing.assert_array_equal(element["boxes"], expected[number]["boxes"])


def test_annotations_in_any_order_stay_with_their_image(root):
    expected = elements(open_detection_source(f"coco:{root}"))

    def reverse(content):
        content["annotations"] = content["annotations"][::-1]
        content["categories"] = content["categories"][::-1]

    change_json(root, "train", reverse)
    for number, element in elements(open_detection_source(f"coco:{root}")).items():
        np.testing.assert_array_equal(element["boxes"], expected[number]["boxes"][::-1])
        np.testing.assert_array_equal(element["labels"], expected[number]["labels"][::-1])


def test_the_stream_is_that_of_every_source_and_resumes(root):
    source = open_detection_source(f"coco:{root}")
    whole = list(source.train_stream(3).take(24).as_numpy_iterator())
    for epoch in (whole[:8], whole[8:16]):
        assert {int(e["id"]) for e in epoch} == set(range(8))
    scanned = elements(source)
    for expected, found in zip(
        whole[11:], source.train_stream(3, start=11).take(13).as_numpy_iterator(), strict=True
    ):
        assert int(expected["position"]) == int(found["position"])
        np.testing.assert_array_equal(expected["boxes"], found["boxes"])
        np.testing.assert_array_equal(found["boxes"], scanned[int(found["id"])]["boxes"])


def test_crowds_are_not_trained_on_but_stay_in_the_ground_truth(root):
    crowd = {"category_id": 2, "bbox": [1, 1, 40, 40], "iscrowd": 1, "area": 700}
    boxes, labels = one_image(root, [crowd, {"category_id": 5, "bbox": [2, 3, 4, 5]}])
    np.testing.assert_array_equal(boxes, [[2, 3, 6, 8]])
    np.testing.assert_array_equal(labels, [1])
    truth = open_detection_source(f"coco:{root}").ground_truth("train")
    assert [a["iscrowd"] for a in truth["annotations"]] == [1, 0]
    assert [a["area"] for a in truth["annotations"]] == [700, 20]


def test_images_without_boxes_are_kept(root):
    def change(content):
        first = content["images"][0]["id"]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != first]

    change_json(root, "train", change)
    source = open_detection_source(f"coco:{root}")
    assert source.sizes["train"] == 8
    assert elements(source)[0]["boxes"].shape == (0, 4)
    assert elements(source)[0]["labels"].shape == (0,)


def test_boxes_are_clipped_and_what_is_left_out_is_counted_once(root, caplog):
    boxes = [
        [-5, 40, 20, 20],  # left and below
        [60, 10, 4.5, 5],  # not by more than a pixel
        [64, 0, 5, 5],  # outside
        [3, -9, 5, 9],  # outside
        [10, 10, 0, 5],  # without area
    ]
    with caplog.at_level(logging.WARNING):
        found, _ = one_image(root, [{"category_id": 2, "bbox": box} for box in boxes])
    np.testing.assert_array_equal(found, [[0, 40, 15, 48], [60, 10, 64, 15]])
    record, _ = caplog.records  # and the classes without a box
    assert record.getMessage() == (
        f"{root}/train.json has 5 boxes: 1 clipped to their image, 2 outside of it (left out), "
        "1 without area (left out)."
    )


def test_nothing_is_told_of_a_sound_file(root, caplog):
    with caplog.at_level(logging.WARNING):
        open_detection_source(f"coco:{root}")
    assert not caplog.records


def test_of_more_than_a_hundred_objects_the_largest_are_trained_on(root, caplog):
    random = np.random.default_rng(0)
    sides = random.permutation(np.arange(1, 121)) / 10
    small = [{"category_id": 2, "bbox": [1, 2, side, side]} for side in sides]
    with caplog.at_level(logging.WARNING):
        found, _ = one_image(root, small)
    # In their order; the right edge is a sum.
    assert_close(found[:, 2] - 1, sides[sides > 2], roundings=2, scale=13)
    assert "1 images of which only the 100 largest are kept" in caplog.text
    truth = open_detection_source(f"coco:{root}").ground_truth("train")
    assert len(truth["annotations"]) == 120


def test_the_ground_truth_is_what_pycocotools_needs(root, tmp_path, capsys):
    change_json(root, "val", lambda c: [a.update(id=0) for a in c["annotations"]])
    truth = open_detection_source(f"coco:{root}").ground_truth("val")
    content = read(root, "val")
    assert [a["id"] for a in truth["annotations"]] == list(range(1, len(truth["annotations"]) + 1))
    assert truth["categories"] == content["categories"]
    assert truth["images"] == content["images"]
    for stored, given in zip(content["annotations"], truth["annotations"], strict=True):
        assert {key: given[key] for key in ("image_id", "category_id", "bbox")} == {
            key: stored[key] for key in ("image_id", "category_id", "bbox")
        }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    coco = COCO(str(tmp_path / "truth.json"))
    perfect = [{**annotation, "score": 0.9} for annotation in truth["annotations"]]
    evaluation = COCOeval(coco, coco.loadRes(perfect), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == 1


def change_annotation(number, **values):
    return lambda content: content["annotations"][number].update(values)


def change_image(number, **values):
    return lambda content: content["images"][number].update(values)


def test_png_images_and_folders_within_the_folder_are_read(tmp_path):
    root = write_coco_form(tmp_path, suffix=".png")
    (root / "train" / "deep").mkdir()
    (root / "train" / "001.png").rename(root / "train" / "deep" / "001.png")
    change_json(root, "train", change_image(1, file_name="deep/001.png"))
    source = open_detection_source(f"coco:{root}")
    assert source.describe("train", 1).endswith("train/deep/001.png")
    assert source.load(source.describe("train", 1)).shape == (72, 48, 3)


def test_no_file_is_asked_for_by_itself(root, monkeypatch):
    listed, asked, listdir, stat = [], [], os.listdir, os.stat
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))
    monkeypatch.setattr(os, "stat", lambda path, **o: asked.append(str(path)) or stat(path, **o))
    open_detection_source(f"coco:{root}")
    assert [os.path.basename(os.path.normpath(path)) for path in listed] == ["train", "val"]
    assert not [path for path in asked if path.endswith(".jpg")]


def test_what_tables_and_editors_make_of_a_file_is_undone(root):
    expected = open_detection_source(f"coco:{root}")
    truth = expected.ground_truth("train")

    def as_pandas_writes_it(content):
        for entry in content["images"] + content["annotations"] + content["categories"]:
            entry.update({key: float(value) for key, value in entry.items() if key[-2:] == "id"})
        for image in content["images"]:
            image["width"], image["height"] = float(image["width"]), str(image["height"])
        for annotation in content["annotations"]:
            annotation.update(
                area=float("nan"), iscrowd=float("nan"), image_id=str(int(annotation["image_id"]))
            )

    change_json(root, "train", as_pandas_writes_it)
    for encoding in ("utf-8-sig", "utf-16"):
        path = root / "train.json"
        path.write_bytes(json.dumps(read(root, "train"), indent=2).encode(encoding))
        found = open_detection_source(f"coco:{root}")
        again = json.dumps(found.ground_truth("train"), sort_keys=True)
        assert again == json.dumps(truth, sort_keys=True)  # 1 and no 1.0
        path.write_text(path.read_bytes().decode(encoding))
    for number, element in elements(found).items():
        np.testing.assert_array_equal(element["boxes"], elements(expected)[number]["boxes"])


@pytest.mark.parametrize(
    ("attributes", "box"),
    [
        ({"occluded": False, "rotation": 90}, (19, 0, 31, 29)),  # clipped from -1
        ({"rotation": -30.0}, (9.01, 1.30, 40.99, 26.70)),
        ({"rotation": "x"}, (10, 8, 40, 20)),
        (None, (10, 8, 40, 20)),
    ],
)
def test_a_box_that_cvat_rotates_is_the_box_around_it(root, attributes, box):
    annotation = {"bbox": [10, 8, 30, 12], "category_id": 2, "attributes": attributes}
    boxes, _ = one_image(root, [annotation])
    assert boxes.tolist() == [pytest.approx(box, abs=0.01)]


def test_folders_that_windows_separates_are_found(root):
    (root / "train" / "deep").mkdir()
    (root / "train" / "001.jpg").rename(root / "train" / "deep" / "001.jpg")
    change_json(root, "train", change_image(1, file_name="deep\\001.jpg"))
    source = open_detection_source(f"coco:{root}")
    assert source.describe("train", 1).endswith("train/deep/001.jpg")


@pytest.mark.parametrize("name", ["objects", "red"])
def test_a_category_that_only_groups_others_is_no_class(root, name, caplog):
    """As in Roboflow's exports, where it may have the name of the one class that it groups."""

    def group(content):
        for category in content["categories"]:
            category["supercategory"] = name
        content["categories"].insert(0, {"id": 0, "name": name, "supercategory": "none"})

    for split in ("train", "val"):
        change_json(root, split, group)
    source = open_detection_source(f"coco:{root}")
    assert source.class_names == ("red", "green", "blue")
    assert [each["id"] for each in source.ground_truth("val")["categories"]] == [2, 5, 11]
    assert not caplog.records


def test_a_class_without_a_box_is_told(root, caplog):
    new = {"id": 3, "name": "grey", "supercategory": "grey"}
    for split in ("train", "val"):
        change_json(root, split, lambda content: content["categories"].append(new))
    assert open_detection_source(f"coco:{root}").class_names == ("red", "grey", "green", "blue")
    assert caplog.messages == [f"{root}/train.json has no box of 'grey', which cannot be learned."]


@pytest.mark.parametrize(
    ("annotations", "images", "val"),
    [
        ("annotations/instances_{}.json", "images/{}", "val"),
        ("{}/_annotations.coco.json", "{}", "valid"),
        ("{}/labels.json", "{}/data", "val"),
    ],
)
def test_the_layouts_of_tools_are_read(root, tmp_path, annotations, images, val):
    for split, name in (("train", "train"), ("val", val)):
        file, folder = (
            tmp_path / "x" / annotations.format(name),
            tmp_path / "x" / images.format(name),
        )
        folder.parent.mkdir(parents=True, exist_ok=True)
        (root / split).rename(folder)
        file.parent.mkdir(exist_ok=True)
        (root / f"{split}.json").rename(file)
    source = open_detection_source(f"coco:{tmp_path / 'x'}")
    assert source.describe("val", 0) == str(tmp_path / "x" / images.format(val) / "000.jpg")


def whole_file(text):
    return lambda root: (root / "train.json").write_text(text)


def json_change(change, split="train"):
    return lambda root: change_json(root, split, change)


def remove(*names):
    return lambda root: [(root / name).unlink() for name in names]


BOX = r'needs "bbox", left, top, width and height'
TRAIN = r"scenes/train\.json"
BAD = {
    "no JSON": (whole_file("{"), f"{TRAIN} is not a JSON file: Expecting"),
    "no text": (
        lambda root: (root / "train.json").write_bytes(b"\xff\xfe\x00"),
        f"{TRAIN} is not text in UTF-8; save it as that",
    ),
    "of another encoding": (
        lambda root: (root / "train.json").write_text('{"ä": 1}', encoding="latin-1"),
        f"{TRAIN} is not text in UTF-8; save it as that",
    ),
    "a tool's own form": (
        whole_file('{"_via_settings": 1, "_via_img_metadata": 2}'),
        f"""{TRAIN} needs a list of "images" .* COCO's form; it has '_via_settings', '_via_""",
    ),
    "a list": (whole_file("[]"), f'{TRAIN} needs a list of "images"'),
    "no categories": (
        json_change(lambda c: c.pop("categories")),
        f'{TRAIN} needs a list of "categories"',
    ),
    "images no list": (
        json_change(lambda c: c.update(images={})),
        f'{TRAIN} needs a list of "images"',
    ),
    "no annotations": (
        json_change(lambda c: c.update(annotations=[])),
        f'{TRAIN} needs a list of "annotations" that is not empty',
    ),
    "no images": (
        json_change(lambda c: c.update(images=[])),
        f'{TRAIN} needs a list of "images" that is not empty',
    ),
    "no validation images": (
        json_change(lambda c: c.update(images=[]), "val"),
        r'scenes/val\.json needs a list of "images"',
    ),
    "an entry that is no object": (
        json_change(lambda c: c["annotations"].insert(2, 7)),
        rf"{TRAIN}: annotations\[2\] is not a JSON object",
    ),
    "an unknown image": (
        json_change(change_annotation(3, image_id=5, id=77)),
        rf'{TRAIN}: annotations\[3\] \(id 77\) needs "image_id", .* images; it has 5',
    ),
    "an unknown category": (
        json_change(change_annotation(3, category_id=1)),
        rf'{TRAIN}: annotations\[3\] needs "category_id", .* categories; it has 1',
    ),
    "an image id that is a string": (
        json_change(change_annotation(0, image_id="x1000")),
        rf'{TRAIN}: annotations\[0\] needs "image_id", .*; it has \'x1000\'',
    ),
    "no category id": (
        json_change(lambda c: c["annotations"][4].pop("category_id")),
        rf'{TRAIN}: annotations\[4\] needs "category_id", .*; it has none',
    ),
    "no box": (
        json_change(lambda c: c["annotations"][1].pop("bbox")),
        rf"{TRAIN}: annotations\[1\] {BOX}, .*; it has none",
    ),
    "three numbers": (
        json_change(change_annotation(1, bbox=[1, 2, 3])),
        rf"{TRAIN}: annotations\[1\] {BOX}",
    ),
    "a box of strings": (
        json_change(change_annotation(1, bbox=["1", "2", "3", "4"])),
        rf"{TRAIN}: annotations\[1\] {BOX}",
    ),
    "a box of null": (
        json_change(change_annotation(1, bbox=[1, 2, 3, None])),
        rf"{TRAIN}: annotations\[1\] {BOX}",
    ),
    "NaN": (
        json_change(change_annotation(2, id=9, bbox=[1, float("nan"), 3, 4])),
        rf"{TRAIN}: annotations\[2\] \(id 9\) {BOX}, .*; it has \[1, nan, 3, 4\]",
    ),
    "infinite": (
        json_change(change_annotation(2, bbox=[1, 2, float("inf"), 4])),
        rf"{TRAIN}: annotations\[2\] {BOX}",
    ),
    "too long a number": (
        json_change(change_annotation(2, bbox=[1, 2, 10**310, 4])),
        rf"{TRAIN}: annotations\[2\] {BOX}",
    ),
    "a negative width": (
        json_change(change_annotation(2, bbox=[1, 2, -3, 4])),
        rf"{TRAIN}: annotations\[2\] {BOX}",
    ),
    "a negative height in val": (
        json_change(change_annotation(0, bbox=[1, 2, 3, -4]), "val"),
        rf"scenes/val\.json: annotations\[0\] {BOX}",
    ),
    "an area that is none": (
        json_change(change_annotation(2, area=-1)),
        rf'{TRAIN}: annotations\[2\] needs "area", .* 0 or more; it has -1',
    ),
    "iscrowd of two": (
        json_change(change_annotation(2, iscrowd=2)),
        rf'{TRAIN}: annotations\[2\] needs "iscrowd", 0 or 1; it has 2',
    ),
    "equal image ids": (
        json_change(change_image(1, id=1000)),
        rf'{TRAIN}: 2 images have the "id" 1000',
    ),
    "equal category ids": (
        json_change(lambda c: c["categories"][1].update(id=2)),
        rf'{TRAIN}: 2 categories have the "id" 2',
    ),
    "equal category names": (
        json_change(lambda c: c["categories"][1].update(name="red")),
        rf"{TRAIN}: 2 categories have the \"name\" 'red'",
    ),
    **{
        f"the name {name!r}": (
            json_change(lambda c, name=name: c["categories"][1].update(name=name)),
            rf'{TRAIN}: categories\[1\] .*needs "name", one line of text; it has',
        )
        for name in ("", "  ", "a\nb", "a\r", "a\ud800")
    },
    "no width": (
        json_change(lambda c: c["images"][2].pop("width")),
        rf'{TRAIN}: images\[2\] \(id 986\) needs "width", .*; it has none',
    ),
    "no height to speak of": (
        json_change(change_image(2, height=0)),
        rf'{TRAIN}: images\[2\] .*needs "height", .* 1 or more; it has 0',
    ),
    "no file name": (
        json_change(change_image(2, file_name=None)),
        rf'{TRAIN}: images\[2\] \(id 986\) needs "file_name", a string; it has None',
    ),
    "files missing": (
        remove("train/004.jpg", "train/002.jpg"),
        rf"scenes/train lacks 2 of the 8 images in .*{TRAIN}, first 002\.jpg",
    ),
    "a folder of files missing": (
        json_change(change_image(5, file_name="other/005.jpg"), "train"),
        r"scenes/train lacks 1 of .*, first other/005\.jpg",
    ),
    "a file in another folder": (
        json_change(change_image(5, file_name="images\\005.jpg"), "train"),
        r"first images\\005\.jpg; 005\.jpg is there, so leave out the folder",
    ),
    **{
        f"the path {name}": (
            json_change(change_image(5, file_name=name)),
            rf'{TRAIN}: the "file_name" .* leads out of .*scenes/train; write it relative to',
        )
        for name in (
            "../val/000.jpg",
            "a/../../val/000.jpg",
            "/etc/hosts",
            "..\\\\val",
            "C:\\\\a.jpg",
        )
    },
    "shares of the image": (
        json_change(lambda c: [a.update(bbox=[0.1, 0.25, 0.5, 0.75]) for a in c["annotations"]]),
        rf'{TRAIN}: every "bbox" is at most 1, as in shares of the image; write left, top',
    ),
    "two corners": (
        json_change(lambda c: [a.update(bbox=[20, 20, 40, 38]) for a in c["annotations"]]),
        rf'{TRAIN}: every "bbox" fits its image as left, top, right, bottom only; write left',
    ),
    "nothing to train on": (
        json_change(lambda c: [a.update(iscrowd=1) for a in c["annotations"]]),
        f"{TRAIN} has no box to train on",
    ),
    "other categories in val": (
        json_change(lambda c: c["categories"].append({"id": 20, "name": "grey"}), "val"),
        r"train\.json lacks the category 'grey' with the id 20 of .*val\.json",
    ),
    "another name in train": (
        json_change(lambda c: c["categories"][2].update(name="navy")),
        r"train\.json lacks the category 'blue' with the id 11 of .*val\.json",
    ),
    "no val.json": (
        remove("val.json"),
        r"no .*scenes/val\.json; a detector needs annotations .* for training and validation",
    ),
    "no train.json": (remove("train.json"), r"no .*scenes/train\.json; a detector needs"),
    "neither": (
        remove("train.json", "val.json"),
        r"scenes is not in COCO form: it has no train\.json or .*instances_train2017\.json",
    ),
    "no folder of images": (
        lambda root: (root / "val").rename(root / "other"),
        r"no .*scenes/val; a detector needs .* images",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_when_it_is_opened(root, case):
    damage, message = BAD[case]
    damage(root)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        open_detection_source(f"coco:{root}")
    assert "\n" not in str(error.value)


def test_names_that_are_no_detection_data_are_errors(root, tmp_path):
    for name in ("", "coco:"):
        with pytest.raises(ValueError, match="names nothing; give coco:PATH or a TFDS name"):
            open_detection_source(name)
    for name in ("digits", f"folder:{root}"):
        with pytest.raises(ValueError, match=f"{name}' has no boxes"):
            open_detection_source(name)
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        open_detection_source(f"coco:{tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match=r"train\.json is a file; give the folder"):
        open_detection_source(f"coco:{root / 'train.json'}")
    with pytest.raises(ValueError, match=f"write coco:{root}"):
        open_detection_source(str(root))
    with pytest.raises(ValueError, match=f"leave it out with coco:{root}"):
        open_detection_source(f"coco:{root}", manual_dir="by_hand")
    with pytest.raises(ValueError, match=f"coco:{root} has boxes, for a detector"):
        open_source(f"coco:{root}")


def test_outlines_are_left_aside(root):
    polygon = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
    change_json(root, "train", lambda c: [a.update(segmentation=polygon) for a in c["annotations"]])
    truth = open_detection_source(f"coco:{root}").ground_truth("train")
    assert "segmentation" not in truth["annotations"][0]


def test_a_picture_is_where_its_boxes_say(root):
    """The tiny data set itself: each box is filled with the colour of its class."""
    source = open_detection_source(f"coco:{root}")
    for number, element in elements(source).items():
        pixels = np.asarray(Image.open(source.describe("train", number))).astype(int)
        for (left, top, right, bottom), label in zip(
            element["boxes"].astype(int), element["labels"], strict=True
        ):
            colour = pixels[top + 2 : bottom - 2, left + 2 : right - 2].reshape(-1, 3).mean(axis=0)
            assert colour.argmax() == label
            assert colour.max() > 180
