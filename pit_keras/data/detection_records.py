"""Data sets for detection stored by TensorFlow Datasets (TFDS), such as coco/2017.

An example has one image and a sequence of objects with "bbox" and "label", and perhaps "is_crowd"
and "area". The image's id is "image/id", else the number of the record. TFDS stores boxes as shares
of the image, so they are those of COCO up to float32's precision.
"""

import dataclasses

import tensorflow as tf
import tensorflow_datasets as tfds

from pit_keras.data.coco_annotations import MAX_OBJECTS, coco_categories, coco_object
from pit_keras.data.orientation import orientation_of, turned_size
from pit_keras.data.records import RecordSource, find_image_key, the_one, whole_splits
from pit_keras.data.source import DetectionSource, as_written
from pit_keras.data.tfds_builders import prepared_info
from pit_keras.data.unreadable import attempt

OPTIONAL = ("is_crowd", "area")  # of an object
IMAGE_ID = "image/id"
FILE_NAME = "image/filename"
# TFDS numbers COCO's 80 classes in succession; COCO's own ids leave these out of 1 to 90.
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


@dataclasses.dataclass(frozen=True, eq=False)
class DetectionRecordSource(RecordSource, DetectionSource):
    """A prepared TFDS data set whose examples have labelled boxes."""

    objects_key: str
    category_ids: tuple[int, ...]
    _image_ids: dict = dataclasses.field(default_factory=dict)  # read with the first ground truth

    def image_id(self, split, example_id):
        if split not in self._image_ids:
            self.ground_truth(split)
        return self._image_ids[split][example_id]

    @as_written
    def ground_truth(self, split):
        """See `DetectionSource`. Reads all records of the split, but decodes no image."""
        images, annotations, image_ids = [], [], {}
        for record in self.splits[split].records().map(self._record).as_numpy_iterator():
            number, image_id = int(record["id"]), int(record["image_id"])
            image_ids[number] = image_id
            height, width = map(int, record["size"])
            name = record["file_name"].decode() or self.describe(split, number)
            images.append({"id": image_id, "file_name": name, "height": height, "width": width})
            columns = (record[key].tolist() for key in ("boxes", "labels", "areas", "crowd"))
            for (left, top, right, bottom), label, *others in zip(*columns, strict=True):
                box = [left, top, right - left, bottom - top]
                category, count = self.category_ids[label], len(annotations)
                annotations.append(coco_object(count + 1, image_id, category, box, *others))
        if len(set(image_ids.values())) < len(image_ids):
            raise ValueError(f"Several images in {split} of {self.name} have the same {IMAGE_ID}.")
        self._image_ids[split] = image_ids
        return {
            "images": images,
            "annotations": annotations,
            "categories": coco_categories(self.category_ids, self.class_names),
        }

    def _parse(self, record_id, record):
        objects = self._record(record_id, record)
        sides = objects["boxes"][:, 2:] - objects["boxes"][:, :2]
        kept = tf.where(~objects["crowd"] & tf.reduce_all(sides > 0, axis=1))[:, 0]
        areas = tf.gather(tf.reduce_prod(sides, axis=1), kept)
        largest = tf.math.top_k(areas, tf.minimum(tf.size(areas), MAX_OBJECTS)).indices
        kept = tf.gather(kept, tf.sort(largest))
        return {
            "image": objects["image"],
            "boxes": tf.gather(objects["boxes"], kept),
            "labels": tf.gather(objects["labels"], kept),
            "id": record_id,
        }

    def _record(self, record_id, record):
        """A record's image and all its objects; boxes are left, top, right, bottom in pixels."""
        example = self._deserialised(record)
        objects, image = example[self.objects_key], example[self.image_key]
        size = _stored_size(image)
        if self.apply_orientation:
            size = turned_size(size, orientation_of(image))
        labels = tf.cast(objects["label"], tf.int64)
        sides = tf.cast(tf.gather(size, [1, 0, 1, 0]), tf.float32)
        shares = tf.clip_by_value(objects["bbox"], 0.0, 1.0)  # top, left, bottom, right
        boxes = tf.gather(shares, [1, 0, 3, 2], axis=1) * sides
        areas = tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        return {
            "image": image,
            "size": size,
            "boxes": boxes,
            "labels": labels,
            "areas": tf.cast(objects.get("area", areas), tf.float32),
            "crowd": tf.cast(objects.get("is_crowd", tf.zeros_like(labels)), tf.bool),
            "image_id": tf.cast(example.get(IMAGE_ID, record_id), tf.int64),
            "file_name": example.get(FILE_NAME, tf.constant("")),
            "id": record_id,
        }


def open_detection_records(name, *, data_dir=None, manual_dir=None):
    """Opens a TFDS data set with labelled boxes, its splits "train" and "validation".

    The arguments and errors are those of `tfds_builders.prepared_info`.
    """
    info = prepared_info(name, data_dir, manual_dir)
    image_key = find_image_key(info, name)
    # Sorted, since TFDS stores the features in a map of no fixed order.
    keys = sorted(key for key, feature in info.features.items() if _has_labelled_boxes(feature))
    objects_key = the_one(keys, name, "sequence of objects with a bbox and a class label")
    train, val = whole_splits(info, name, "train", "validation")
    objects = info.features[objects_key].feature
    wanted = {
        image_key: True,
        objects_key: {"bbox", "label", *(key for key in OPTIONAL if key in objects)},
        **{key: True for key in (IMAGE_ID, FILE_NAME) if key in info.features},
    }
    class_names = tuple(objects["label"].names)
    return DetectionRecordSource(
        name=name,
        class_names=class_names,
        splits={"train": train, "val": val},
        features=tfds.decode.PartialDecoding(wanted).extract_features(info.features),
        image_key=image_key,
        objects_key=objects_key,
        category_ids=_category_ids(info.name, len(class_names)),
    )


def _has_labelled_boxes(feature):
    if not isinstance(feature, tfds.features.Sequence):
        return False
    objects = feature.feature
    return (
        isinstance(objects, tfds.features.FeaturesDict)
        and {"bbox", "label"} <= set(objects)
        and isinstance(objects["bbox"], tfds.features.BBoxFeature)
        and isinstance(objects["label"], tfds.features.ClassLabel)
    )


def _category_ids(builder_name, classes):
    """COCO's own ids for COCO, so that detections can be compared with its files; else from 1."""
    if builder_name == "coco" and classes == 80:
        return tuple(number for number in range(1, 91) if number not in COCO_GAPS)
    return tuple(range(1, classes + 1))


def _stored_size(contents):
    """The height and width in the header of a JPEG or PNG file, int32 (2,); zeros if it is bad."""

    def png_size():
        sides = tf.io.decode_raw(tf.strings.substr(contents, 16, 8), tf.int32, little_endian=False)
        return tf.ensure_shape(sides[::-1], (2,))

    def size(contents):
        is_jpeg, jpeg_size = tf.io.is_jpeg(contents), lambda: tf.io.extract_jpeg_shape(contents)[:2]
        return tf.cond(is_jpeg, jpeg_size, png_size)

    return attempt(size, contents, tf.zeros(2, tf.int32))
