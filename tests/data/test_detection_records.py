import io
import itertools
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from coco_form import NAMES, draw, random_objects
from PIL import ExifTags, Image
from tolerances import assert_close

from pit_keras.config.fields import DataConfig
from pit_keras.data.coco import open_detection_source
from pit_keras.data.detection_pipeline import (
    detection_evaluation_batches,
    detection_train_batches,
)
from pit_keras.data.detection_records import _category_ids

LABELS = {category: label for label, category in enumerate(NAMES)}
COUNTS = {"train": 12, "validation": 7}
OBJECTS = {
    "id": np.int64,
    "area": np.int64,
    "bbox": tfds.features.BBoxFeature(),
    "label": tfds.features.ClassLabel(names=list(NAMES.values())),
    "is_crowd": np.bool_,
}


def scenes(split, count):
    """The scenes of a split: (height, width, rectangles), drawn anew but alike each time."""
    random = np.random.default_rng(len(split))
    sizes = [((48, 72), (72, 48), (60, 60))[number % 3] for number in range(count)]
    return [(*size, random_objects(random, *size)) for size in sizes]


def relative(height, width, rectangle):
    _, left, top, box_width, box_height = rectangle
    return tfds.features.BBox(
        ymin=top / height,
        xmin=left / width,
        ymax=(top + box_height) / height,
        xmax=(left + box_width) / width,
    )


def stored_object(height, width, rectangle, objects):
    values = {
        "id": 0,
        "area": rectangle[3] * rectangle[4] - 1,  # an outline's
        "bbox": relative(height, width, rectangle),
        "label": LABELS[rectangle[0]],
        "is_crowd": False,
    }
    return {key: values[key] for key in objects}


def store_scenes(
    folder, parts=None, objects=None, image_format="jpeg", extra=True, change=None, **features
):
    """Stores a TFDS data set of the form of coco/2017; returns its folder."""
    objects = objects or OBJECTS
    features = {
        "image": tfds.features.Image(encoding_format=image_format),
        "objects": tfds.features.Sequence(objects),
        **({"image/filename": tfds.features.Text(), "image/id": np.int64} if extra else {}),
        **features,
    }

    def example(split, number, height, width, rectangles):
        own = [stored_object(height, width, rectangle, objects) for rectangle in rectangles]
        values = {
            "image": draw(height, width, rectangles),
            "image/filename": f"{split}_{number}.jpg",
            "image/id": 500 - 3 * number,
            "objects": own,
            "others": own,
        }
        if change:
            change(number, values)
        return number, {key: values[key] for key in features}

    tfds.dataset_builders.store_as_tfds_dataset(
        name="scenes",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={
            split: [example(split, n, *scene) for n, scene in enumerate(scenes(split, count))]
            for split, count in (parts or COUNTS).items()
        },
        data_dir=folder,
        download_config=tfds.download.DownloadConfig(num_shards=2),
    )
    return folder


def opened(folder):
    return open_detection_source("scenes", data_dir=folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return opened(store_scenes(tmp_path_factory.mktemp("scenes")))


def by_image_id(source, split, stored):
    """Each scan element with its scene."""
    listed = scenes(stored, COUNTS[stored])
    for element in source.scan(split).as_numpy_iterator():
        number = (500 - source.image_id(split, int(element["id"]))) // 3
        yield element, listed[number], number


@pytest.mark.parametrize(("split", "stored"), [("train", "train"), ("val", "validation")])
def test_boxes_are_in_pixels_of_the_stored_image(source, split, stored):
    assert source.sizes == {"train": 12, "val": 7}
    assert source.class_names == ("red", "green", "blue")
    assert source.is_encoded
    check_scenes(source, split, stored)


def test_boxes_are_in_pixels_of_the_image_as_exif_turns_it(tmp_path):
    def lay_down(number, values):
        exif, file = Image.Exif(), io.BytesIO()
        exif[ExifTags.Base.Orientation] = 6
        lying = Image.fromarray(values["image"]).transpose(Image.Transpose.ROTATE_90)
        lying.save(file, "JPEG", exif=exif, quality=95, subsampling=0)
        values["image"] = io.BytesIO(file.getvalue())

    source = opened(store_scenes(tmp_path, change=lay_down)).oriented(True)
    check_scenes(source, "val", "validation")
    listed = scenes("validation", 7)
    for image in source.ground_truth("val")["images"]:
        assert (image["height"], image["width"]) == listed[(500 - image["id"]) // 3][:2]


def check_scenes(source, split, stored):
    seen = set()
    for element, (height, width, rectangles), number in by_image_id(source, split, stored):
        seen.add(number)
        image = source.load(element["image"]).numpy()
        assert image.shape == (height, width, 3)
        corners = [[x, y, x + w, y + h] for _, x, y, w, h in rectangles]
        assert_close(element["boxes"], corners, roundings=3)  # a share, stored, of the size
        assert element["boxes"].dtype == np.float32
        labels = [LABELS[category] for category, *_ in rectangles]
        np.testing.assert_array_equal(element["labels"], labels)
        for (_, x, y, w, h), label in zip(rectangles, labels, strict=True):
            assert image[y + h // 2, x + w // 2].argmax() == label
    assert seen == set(range(source.sizes[split]))


def test_the_ground_truth_is_in_cocos_form(source):
    truth = source.ground_truth("val")
    listed = scenes("validation", 7)
    assert [c["name"] for c in truth["categories"]] == ["red", "green", "blue"]
    assert tuple(c["id"] for c in truth["categories"]) == source.category_ids
    assert sorted(image["id"] for image in truth["images"]) == [
        500 - 3 * n for n in range(6, -1, -1)
    ]
    for image in truth["images"]:
        number = (500 - image["id"]) // 3
        height, width, rectangles = listed[number]
        assert image["file_name"] == f"validation_{number}.jpg"
        assert (image["height"], image["width"]) == (height, width)
        own = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        # A side is a difference of two edges.
        assert_close([a["bbox"] for a in own], [r[1:] for r in rectangles], roundings=7, scale=72)
        assert [a["area"] for a in own] == [r[3] * r[4] - 1 for r in rectangles]
        ids = [source.category_ids[LABELS[r[0]]] for r in rectangles]
        assert [a["category_id"] for a in own] == ids
        assert {a["iscrowd"] for a in own} == {0}
    ids = [a["id"] for a in truth["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


def test_image_ids_are_known_without_asking_for_the_ground_truth_first(source):
    fresh = opened(source.splits["train"].files[0].rsplit("/scenes/", 1)[0])
    ids = {int(e["id"]): fresh.image_id("val", int(e["id"])) for e in fresh.scan("val")}
    assert sorted(ids.values()) == [500 - 3 * n for n in range(6, -1, -1)]


def test_the_stream_is_that_of_every_source_and_resumes(source):
    whole = list(source.train_stream(3).take(30).as_numpy_iterator())
    assert {int(e["id"]) for e in whole[:12]} == set(range(12))
    tail = list(source.train_stream(3, start=13).take(17).as_numpy_iterator())
    for expected, found in zip(whole[13:], tail, strict=True):
        for key in expected:
            np.testing.assert_array_equal(expected[key], found[key])


def test_batches_of_records_show_rectangles_under_their_boxes(source):
    data = DataConfig(image_size=(40, 60))
    detection = types.SimpleNamespace(multi_scale=True, random_crop=True)
    batches = detection_train_batches(source, data, detection, batch_size=4, seed=0)
    seen = []
    for batch in batches.take(3).as_numpy_iterator():
        seen += list(batch["id"])
        for image, mask, boxes, labels in zip(
            *(batch[key] for key in ("image", "padding_mask", "boxes", "labels")), strict=True
        ):
            height, width = (~mask[:, 0]).sum(), (~mask[0]).sum()
            for (x, y, w, h), label in zip(boxes[labels >= 0], labels[labels >= 0], strict=True):
                if min(w * width, h * height) >= 4:
                    assert image[int(y * height), int(x * width)].argmax() == label
    assert sorted(seen) == list(range(12))
    answers = detection_evaluation_batches(source, "val", data, batch_size=4)
    ids = [int(i) for batch in answers for i in batch["id"] if i >= 0]
    assert sorted(ids) == list(range(7))


def make_crowds_and_points(number, values):
    if number == 0:
        values["objects"][0]["is_crowd"] = True
    if number == 1:
        box = values["objects"][0]["bbox"]
        values["objects"][0]["bbox"] = box._replace(xmax=box.xmin)
    if number == 2:
        values["objects"] = []
    if number == 3:
        sides = np.random.default_rng(0).permutation(np.arange(1, 121)) / 200
        values["objects"] = [
            {**values["objects"][0], "bbox": tfds.features.BBox(0.0, 0.0, side, side)}
            for side in sides
        ]


def test_crowds_points_and_the_smallest_of_many_are_not_trained_on(tmp_path):
    source = opened(store_scenes(tmp_path, change=make_crowds_and_points))
    truth = source.ground_truth("train")
    counts = {number: len(scene[2]) for number, scene in enumerate(scenes("train", 12))}
    for element, _, number in by_image_id(source, "train", "train"):
        own = [a for a in truth["annotations"] if a["image_id"] == 500 - 3 * number]
        trained, stored = len(element["labels"]), len(own)
        assert element["boxes"].shape == (trained, 4)
        if number in (0, 1):
            assert (trained, stored) == (counts[number] - 1, counts[number])
            assert own[0]["iscrowd"] == (number == 0)
        elif number == 2:
            assert (trained, stored) == (0, 0)
        elif number == 3:
            assert (trained, stored) == (100, 120)
            kept = [a["bbox"][2] for a in own if a["bbox"][2] > 72 * 20.5 / 200]
            assert_close(element["boxes"][:, 2], kept, roundings=2)  # in their order
        else:
            assert trained == stored == counts[number]


def test_what_objects_need_not_have_is_made_up(tmp_path):
    objects = {key: OBJECTS[key] for key in ("bbox", "label")}
    source = opened(store_scenes(tmp_path, objects=objects, image_format="png", extra=False))
    truth = source.ground_truth("val")
    assert [image["id"] for image in truth["images"]] == [int(e["id"]) for e in source.scan("val")]
    assert all(name["file_name"].startswith("record ") for name in truth["images"])
    for annotation in truth["annotations"]:
        assert annotation["iscrowd"] == 0
        width, height = annotation["bbox"][2:]
        assert_close(annotation["area"], width * height, roundings=15, scale=72 * 72)
    stored = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for element in source.scan("val").as_numpy_iterator():
        height, width = stored[int(element["id"])]
        assert source.load(element["image"]).shape == (height, width, 3)
        own = [a["bbox"] for a in truth["annotations"] if a["image_id"] == element["id"]]
        np.testing.assert_allclose(element["boxes"][:, :2], [box[:2] for box in own])


def test_equal_image_ids_are_an_error(tmp_path):
    change = {"change": lambda number, values: values.update({"image/id": number // 2})}
    source = opened(store_scenes(tmp_path, **change))
    with pytest.raises(ValueError, match="Several images in val of scenes have the same image/id"):
        source.ground_truth("val")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": {"train": 3}}, "scenes has no validation split; it has train"),
        ({"parts": {"test": 3, "validation": 2}}, "scenes has no train split"),
        ({"others": tfds.features.Sequence(OBJECTS)}, r"label, it has several \(objects, others\)"),
        ({"objects": {"bbox": OBJECTS["bbox"]}}, "with a bbox and a class label, it has none"),
        ({"objects": {**OBJECTS, "label": np.int64}}, "class label, it has none"),
    ],
)
def test_labelled_boxes_for_training_and_validation_are_needed(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        opened(store_scenes(tmp_path, **options))


def test_broken_images_have_no_size_and_end_nothing(tmp_path, source):
    """They are left to `load_images`, which skips or names them."""
    contents = next(iter(source.scan("train")))["image"]
    for bad in (b"", b"nothing", contents.numpy()[:20], b"\x89PNG\r\n\x1a\n"):
        record = tf.train.Example()
        record.features.feature["image"].bytes_list.value.append(bad)
        record.features.feature["image/id"].int64_list.value.append(1)
        record.features.feature["image/filename"].bytes_list.value.append(b"x")
        for key in ("label", "is_crowd", "area"):
            record.features.feature[f"objects/{key}"].int64_list.value.append(1)
        record.features.feature["objects/bbox"].float_list.value.extend([0, 0, 1, 1])
        element = source._parse(tf.constant(0, tf.int64), record.SerializeToString())
        assert element["boxes"].shape == (0, 4)
        assert element["image"].numpy() == bad


def test_cocos_own_ids_are_kept_for_coco():
    ids = _category_ids("coco", 80)
    assert len(ids) == 80
    gaps = [one for one, other in itertools.pairwise(ids) if other - one > 1]
    assert gaps == [11, 25, 28, 44, 65, 67, 70, 82]
    assert (ids[0], ids[-1]) == (1, 90)
    assert _category_ids("voc", 20) == tuple(range(1, 21))
