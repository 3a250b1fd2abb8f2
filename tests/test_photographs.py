"""The boxes of `benchmarks/photographs.json`, and the data set that is made with them."""

import collections
import importlib.util
import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

ROOT = pathlib.Path(__file__).parents[1]
ANNOTATIONS = json.loads((ROOT / "benchmarks/photographs.json").read_text())


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("photographs", ROOT / "benchmarks/photographs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sixteen_photographs_have_one_to_four_boxes_within_them():
    images = {image["id"]: image for image in ANNOTATIONS["images"]}
    assert len({image["file_name"] for image in images.values()}) == len(images) == 16
    boxes = collections.Counter(box["image_id"] for box in ANNOTATIONS["annotations"])
    assert set(boxes) == set(images)
    assert set(boxes.values()) <= {1, 2, 3, 4}
    for annotation in ANNOTATIONS["annotations"]:
        left, top, width, height = annotation["bbox"]
        image = images[annotation["image_id"]]
        assert min(left, top) >= 0
        assert min(width, height) >= 16
        assert left + width <= image["width"]
        assert top + height <= image["height"]
        assert annotation["area"] == width * height
        assert annotation["iscrowd"] == 0


def test_every_class_has_a_box_and_every_box_a_class():
    ids = [category["id"] for category in ANNOTATIONS["categories"]]
    names = [category["name"] for category in ANNOTATIONS["categories"]]
    assert ids == list(range(1, len(ids) + 1))
    assert names == sorted(set(names))
    assert {box["category_id"] for box in ANNOTATIONS["annotations"]} == set(ids)
    numbers = [box["id"] for box in ANNOTATIONS["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1))


def test_both_splits_have_the_same_photographs(script, tmp_path):
    (tmp_path / "shipped").mkdir()
    for number, image in enumerate(ANNOTATIONS["images"]):
        noise = np.full((image["height"], image["width"], 3), 3 * number, "uint8")
        Image.fromarray(noise).save(tmp_path / "shipped" / image["file_name"])
    (tmp_path / "shipped/imagenet_04_949.jpg").touch()  # one without boxes
    for _ in range(2):  # a run that is carried on writes them again
        script.write_photographs(tmp_path / "new/set", tmp_path / "shipped")
    for split in ("train", "val"):
        coco = COCO(tmp_path / f"new/set/{split}.json")
        assert len(coco.anns) == len(ANNOTATIONS["annotations"])
        files = {path.name: path for path in (tmp_path / f"new/set/{split}").iterdir()}
        assert set(files) == {image["file_name"] for image in coco.imgs.values()}
        for name, path in files.items():
            assert path.read_bytes() == (tmp_path / "shipped" / name).read_bytes()


def test_photographs_that_are_lacking_are_named(script, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        script.write_photographs(tmp_path / "new", tmp_path)
    assert error.value.filename == str(tmp_path / "imagenet_00_243.jpg")
