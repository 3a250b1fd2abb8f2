"""Data sets for detection: images with any number of labelled boxes, in COCO form or from TFDS.

A folder in COCO form is PATH/train.json with the images in PATH/train/, and PATH/val.json with
PATH/val/; or laid out as COCO itself or as a tool exports it, see `LAYOUTS`. It is checked as a
whole when it is opened, except for images that cannot be decoded or have another size than the
annotations say.
"""

import dataclasses
import functools
import logging
import os
import re

import numpy as np
import tensorflow as tf

from pit_keras.data.class_folders import encoded
from pit_keras.data.coco_annotations import (
    read_annotations,
    training_boxes,
    unique,
    without_groups,
)
from pit_keras.data.labelled_images import ArraySource, refuse_manual_dir
from pit_keras.data.source import DetectionSource

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
# Where the annotations and the images of a split are, and what the validation split is called.
LAYOUTS = (
    ("{split}.json", "{split}", "val"),
    ("annotations/instances_{split}2017.json", "{split}2017", "val"),  # COCO
    ("annotations/instances_{split}.json", "images/{split}", "val"),  # CVAT
    ("{split}/_annotations.coco.json", "{split}", "valid"),  # Roboflow
    ("{split}/labels.json", "{split}/data", "val"),  # FiftyOne, of exports to train and val
)


@dataclasses.dataclass(frozen=True, eq=False)
class CocoSource(ArraySource, DetectionSource):
    """Image files and annotations in COCO form.

    Elements also have a "stated_size", int32 (2,): the image's height and width in the annotations.
    An image of another size counts as unreadable (see `unreadable.load_images`), since its boxes
    would lie elsewhere.

    `labels` are ragged; `objects` has the columns "boxes", ragged, and "stated_size" of each split.
    """

    objects: dict[str, dict]
    category_ids: tuple[int, ...]
    files: dict[str, str]  # of the annotations
    image_ids: dict[str, tuple[int, ...]]

    def image_id(self, split, example_id):
        return self.image_ids[split][example_id]

    def most_objects(self):
        return int(tf.reduce_max(self.labels["train"].row_lengths()))

    def ground_truth(self, split):
        # Read again: COCO's own annotations would take much of the memory all through training.
        content = read_annotations(self.files[split])
        classes = [each for each in content["categories"] if each["id"] in self.category_ids]
        return {**content, "categories": classes}

    def _example(self, split, index):
        columns = {"labels": self.labels[split], **self.objects[split]}
        objects = {name: column[index] for name, column in columns.items()}
        return {"image": self.images[split][index], **objects, "id": index}


def open_detection_source(dataset, *, data_dir=None, manual_dir=None):
    """Opens a data set for detection by name.

    `dataset` is "coco:PATH" (see the module), or the name of a TFDS data set that has boxes, such
    as "coco/2017". The other arguments and the errors are those of `labelled_images.open_source`.
    """
    if dataset in ("", "coco:", "digits") or dataset.startswith("folder:"):
        problem = "names nothing" if dataset in ("", "coco:") else "has no boxes"
        raise ValueError(
            f"The data set {dataset!r} {problem}; give coco:PATH or a TFDS name as coco/2017."
        )
    if dataset.startswith("coco:"):
        refuse_manual_dir(dataset, manual_dir)
        return _open_coco(dataset)
    files = (os.path.join(dataset, file.format(split="train")) for file, *_ in LAYOUTS)
    if any(os.path.isfile(os.path.expanduser(file)) for file in files):
        raise ValueError(f"{dataset} is a folder; write coco:{dataset} to read images from it.")
    # Imported here because tensorflow_datasets is slow to import and needed by few.
    from pit_keras.data.detection_records import open_detection_records

    return open_detection_records(dataset, data_dir=data_dir, manual_dir=manual_dir)


def _open_coco(dataset):
    files, folders = _places(os.path.normpath(os.path.expanduser(dataset.removeprefix("coco:"))))
    contents = {split: read_annotations(files[split]) for split in SPLITS}
    without_groups(contents.values())
    for split in SPLITS:
        unique(files[split], contents[split]["categories"], "categories", "name")
    train, val = (
        {category["id"]: category["name"] for category in contents[split]["categories"]}
        for split in SPLITS
    )
    if train != val:
        number, name = min(train.items() ^ val.items())
        having, lacking = ("train", "val") if train.get(number) == name else ("val", "train")
        raise ValueError(
            f"{files[lacking]} lacks the category {name!r} with the id {number} of {files[having]}."
        )
    images, objects, labels, image_ids = {}, {}, {}, {}
    for split, content in contents.items():
        names = [image["file_name"] for image in content["images"]]
        sizes = [(image["height"], image["width"]) for image in content["images"]]
        paths = encoded(_image_files(names, folders[split], files[split]))
        boxes, ranks, starts, remark = training_boxes(content, files[split])
        if split == "train" and not len(ranks):
            raise ValueError(
                f"{files[split]} has no box to train on: all are crowds, without area or outside "
                "of their image."
            )
        if split == "train":
            _warn(remark, contents[split]["categories"], ranks, files[split])
        image_ids[split] = tuple(image["id"] for image in content["images"])
        with tf.device("CPU"):  # the input pipeline runs there
            images[split] = tf.constant(paths, tf.string)
            labels[split] = tf.RaggedTensor.from_row_splits(ranks, starts)
            objects[split] = {
                "boxes": tf.RaggedTensor.from_row_splits(boxes, starts),
                "stated_size": tf.constant(sizes, tf.int32),
            }
    class_names = tuple(train.values())
    return CocoSource(dataset, class_names, images, labels, objects, tuple(train), files, image_ids)


def _warn(remark, categories, ranks, path):
    if remark:
        logger.warning("%s", remark)
    lacking = [category["name"] for category in np.delete(categories, np.unique(ranks))]
    if lacking:
        names = ", ".join(map(repr, lacking[:5])) + (", ..." if lacking[5:] else "")
        logger.warning("%s has no box of %s, which cannot be learned.", path, names)


def _places(path):
    """The annotation files and the image folders of the splits."""
    if os.path.isfile(path):
        raise ValueError(f"{path} is a file; give the folder that holds train.json and val.json.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no folder {path}.")
    for *layout, val in LAYOUTS:
        names = dict(zip(SPLITS, ("train", val), strict=True))
        files, folders = (
            {split: os.path.join(path, part.format(split=name)) for split, name in names.items()}
            for part in layout
        )
        if any(map(os.path.isfile, files.values())):
            break
    else:
        wanted = " or ".join(file.format(split="train") for file, *_ in LAYOUTS)
        raise FileNotFoundError(f"{path} is not in COCO form: it has no {wanted}.")
    for place in (*files.values(), *folders.values()):
        if not os.path.exists(place):
            raise FileNotFoundError(
                f"There is no {place}; a detector needs annotations and images for training and "
                "validation."
            )
    return files, folders


def _image_files(names, folder, annotations):
    """The paths of all images. Each folder is listed once; no file is asked for by itself."""

    @functools.cache
    def listed(inner):
        path = os.path.join(folder, inner)
        return set(os.listdir(path)) if os.path.isdir(path) else set()

    def is_there(name):
        return os.path.basename(name) in listed(os.path.dirname(name))

    found, missing = [], []
    for name in names:
        plain = name.replace("\\", "/")  # as Windows separates folders
        if re.match("/|[A-Za-z]:/", plain) or ".." in plain.split("/"):
            raise ValueError(
                f'{annotations}: the "file_name" {name!r} leads out of {folder}; write it '
                "relative to that folder."
            )
        found.append(name if is_there(name) else plain)
        if not is_there(found[-1]):
            missing.append(name)
    if missing:
        last = os.path.basename(missing[0].replace("\\", "/"))
        hint = (
            f'; {last} is there, so leave out the folder in "file_name"' if is_there(last) else ""
        )
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of the {len(names)} images in {annotations}, first "
            f"{missing[0]}{hint}."
        )
    return [os.path.join(folder, name) for name in found]
