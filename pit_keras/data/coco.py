"""Data sets for detection: images with any number of labelled boxes, in COCO form or from TFDS.

A folder in COCO form is PATH/train.json with the images in PATH/train/, and PATH/val.json with
PATH/val/; or laid out as COCO itself, PATH/annotations/instances_{train,val}2017.json with
PATH/{train,val}2017/. Whatever is wrong with it is found when it is opened, except for images that
cannot be decoded or are not of the size that the annotations say.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping

import tensorflow as tf

from pit_keras.data.coco_annotations import (
    CocoAnnotations,
    ground_truth,
    read_annotations,
    training_boxes,
)
from pit_keras.data.image_folder import encoded
from pit_keras.data.labelled_images import IndexedSource
from pit_keras.data.source import DetectionSource

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
# Where the annotations and the images of a split are.
LAYOUTS = (
    ("{split}.json", "{split}"),
    (os.path.join("annotations", "instances_{split}2017.json"), "{split}2017"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class CocoSource(IndexedSource, DetectionSource):
    """Image files and annotations in COCO form.

    Its elements have one more value, "stated_size": int32 (2,), the height and width of the image
    as the annotations say. Images of another size are treated as unreadable, since their boxes
    would lie elsewhere (see `unreadable.load_images`).

    `boxes` (K, 4), `labels` (K,) and `starts` (N + 1,) of each split are those of
    `coco_annotations.TrainingBoxes`.
    """

    annotations: Mapping[str, CocoAnnotations]
    boxes: Mapping[str, tf.Tensor]
    labels: Mapping[str, tf.Tensor]
    starts: Mapping[str, tf.Tensor]
    image_sizes: Mapping[str, tf.Tensor]

    @property
    def category_ids(self):
        return self.annotations["train"].category_ids

    def image_id(self, split, example_id):
        return self.annotations[split].image_ids[example_id]

    def most_objects(self):
        starts = self.starts["train"]
        return int(tf.reduce_max(starts[1:] - starts[:-1]))

    def ground_truth(self, split):
        return ground_truth(self.annotations[split])

    def _example(self, split, index):
        first, last = self.starts[split][index], self.starts[split][index + 1]
        return {
            "image": self.images[split][index],
            "boxes": self.boxes[split][first:last],
            "labels": self.labels[split][first:last],
            "stated_size": self.image_sizes[split][index],
            "id": index,
        }


def open_detection_source(dataset, *, data_dir=None, manual_dir=None):
    """Opens a data set for detection by name.

    What is left out of training is told in one sentence.

    Args:
        dataset: "coco:PATH" (see the module), or the name of a TFDS data set that has boxes, such
            as "coco/2017" (see `detection_records`).
        data_dir, manual_dir: as for `labelled_images.open_source`.

    Raises:
        FileNotFoundError, ValueError: there is no such data set, or it cannot be used; the
            sentence says why.
    """
    if dataset in ("", "coco:"):
        raise ValueError(
            f"The data set {dataset!r} names nothing; give coco:PATH or a TFDS name as coco/2017."
        )
    if dataset == "digits" or dataset.startswith("folder:"):
        raise ValueError(
            f"The data set {dataset} has no boxes, which a detector is trained on; give coco:PATH "
            "or a TFDS name as coco/2017."
        )
    if dataset.startswith("coco:"):
        if manual_dir:
            raise ValueError(
                f"A TFDS data set can be prepared from --manual_dir={manual_dir}, but {dataset} is "
                "none; leave --manual_dir out."
            )
        return _open_coco(dataset)
    if any(_annotations_file(os.path.expanduser(dataset), "train", layout) for layout in LAYOUTS):
        raise ValueError(f"{dataset} is a folder; write coco:{dataset} to read images from it.")
    # Imported here because tensorflow_datasets is slow to import and needed by few.
    from pit_keras.data.detection_records import open_detection_records

    return open_detection_records(dataset, data_dir=data_dir, manual_dir=manual_dir)


def _open_coco(dataset):
    path = os.path.normpath(os.path.expanduser(dataset.removeprefix("coco:")))
    layout = _layout(path)
    annotations = {
        split: read_annotations(_annotations_file(path, split, layout)) for split in SPLITS
    }
    _check_same_categories(annotations)
    images = {
        split: encoded(_image_files(annotations[split], os.path.join(path, _folder(layout, split))))
        for split in SPLITS
    }
    boxes = {split: training_boxes(annotations[split]) for split in SPLITS}
    if not len(boxes["train"].labels):
        raise ValueError(
            f"{annotations['train'].path} has no box to train on: all are crowds, without area or "
            "outside of their image."
        )
    if boxes["train"].remark:
        logger.warning("%s", boxes["train"].remark)
    with tf.device("CPU"):  # the input pipeline runs there
        return CocoSource(
            name=dataset,
            class_names=annotations["train"].class_names,
            images={split: tf.constant(images[split], tf.string) for split in SPLITS},
            annotations=annotations,
            boxes={split: tf.constant(boxes[split].boxes) for split in SPLITS},
            labels={split: tf.constant(boxes[split].labels, tf.int64) for split in SPLITS},
            starts={split: tf.constant(boxes[split].starts, tf.int64) for split in SPLITS},
            image_sizes={
                split: tf.constant(annotations[split].image_sizes, tf.int32) for split in SPLITS
            },
        )


def _layout(path):
    """The one of `LAYOUTS` that a folder has.

    Raises:
        FileNotFoundError: none, or not for both splits.
        ValueError: it is a file.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no folder {path}.")
    if not os.path.isdir(path):
        raise ValueError(f"{path} is a file; give the folder that holds train.json and val.json.")
    for layout in LAYOUTS:
        found = [split for split in SPLITS if _annotations_file(path, split, layout)]
        if not found:
            continue
        for split in SPLITS:
            file, folder = (os.path.join(path, part.format(split=split)) for part in layout)
            if split not in found:
                raise FileNotFoundError(
                    f"There is no {file}; a detector needs the annotations of training and "
                    f"validation images, with the images in {folder}."
                )
            if not os.path.isdir(folder):
                raise FileNotFoundError(f"There is no folder {folder}, the images of {file}.")
        return layout
    wanted = " or ".join(os.path.join(path, file.format(split="train")) for file, _ in LAYOUTS)
    raise FileNotFoundError(f"{path} is not in COCO form: there is no {wanted}.")


def _annotations_file(path, split, layout):
    """The path of a split's annotations, or None if there is no such file."""
    file = os.path.join(path, layout[0].format(split=split))
    return file if os.path.isfile(file) else None


def _folder(layout, split):
    return layout[1].format(split=split)


def _check_same_categories(annotations):
    train, val = (
        set(zip(annotations[split].category_ids, annotations[split].class_names, strict=True))
        for split in SPLITS
    )
    if train != val:
        number, name = min(train ^ val)
        where = annotations["train" if (number, name) in train else "val"].path
        raise ValueError(
            f"The categories of {annotations['train'].path} and {annotations['val'].path} differ: "
            f"{name!r} with the id {number} is only in {where}."
        )


def _image_files(annotations, folder):
    """The paths of all images.

    Raises:
        FileNotFoundError: some are not there.
    """
    missing = _missing_files(folder, annotations.file_names)
    if missing:
        raise FileNotFoundError(
            f"Of the {len(annotations.file_names)} images of {annotations.path} {len(missing)} are "
            f"not in {folder}, the first is {missing[0]}."
        )
    return [os.path.join(folder, name) for name in annotations.file_names]


def _missing_files(folder, file_names):
    """Those of the names that are no files below a folder; each folder is listed once."""
    inner_folders = set(map(os.path.dirname, file_names))
    listed = {inner: _listing(os.path.join(folder, inner)) for inner in inner_folders}
    return [
        name for name in file_names if os.path.basename(name) not in listed[os.path.dirname(name)]
    ]


def _listing(folder):
    if not os.path.isdir(folder):
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file()}
