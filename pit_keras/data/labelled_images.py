"""Where labelled images come from: the embedded digits, a folder, or a TFDS data set."""

import collections
import dataclasses
import logging
import os

import tensorflow as tf

from pit_keras.data.class_folders import encoded, list_folder
from pit_keras.data.image_files import in_words
from pit_keras.data.orientation import SETTING, count_turned
from pit_keras.data.preprocessing import cut, decode, decode_box
from pit_keras.data.source import EVERYTHING, Source, as_written

logger = logging.getLogger(__name__)

MOST_LOOKED_AT = 1000  # files of a data set that are searched for an orientation
DIGITS_HELD_OUT = 360  # the last 20%, mostly by other writers


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource(Source):
    """Examples that can be reached by number: paths of files, or images held in memory.

    `images` maps each split to a tensor of paths (N,) or of pixels, uint8 (N, H, W, 3), and
    `labels` to an int64 tensor (N,).
    """

    name: str
    class_names: tuple[str, ...]
    images: dict[str, tf.Tensor]
    labels: dict[str, tf.Tensor]
    left_out: dict[str, int] = dataclasses.field(default_factory=dict, kw_only=True)
    apply_orientation: bool = dataclasses.field(default=False, kw_only=True)

    @property
    def sizes(self):
        return {split: int(images.shape[0]) for split, images in self.images.items()}

    @property
    def is_encoded(self):
        return self.images["train"].dtype == tf.string

    def load(self, image, choose_box=None):
        if not self.is_encoded:
            return cut(image, choose_box) if choose_box else image
        contents, turns = tf.io.read_file(image), self.apply_orientation
        return decode_box(contents, choose_box, turns) if choose_box else decode(contents, turns)

    def describe(self, split, example_id):
        if self.is_encoded:
            return os.fsdecode(self.images[split][example_id].numpy())
        return f"{split} example {example_id} of {self.name}"

    @as_written
    def scan(self, split, shard=EVERYTHING):
        return tf.data.Dataset.range(shard.examples_before(self.sizes[split])).map(
            lambda number: self._example(split, shard.position_of(number))
        )

    @as_written
    def train_stream(self, seed, start=0, length=None, views=1, shard=EVERYTHING):
        size = self.sizes["train"]
        length = length or size

        def draw(number):
            position = shard.position_of(number)
            epoch, place = position // length, position % length
            index = tf.random.experimental.index_shuffle(
                place // views, tf.stack([tf.cast(seed, tf.int64), epoch]), max_index=size - 1
            )
            numbers = {"epoch": epoch, "position": position, "view": place % views}
            return {**self._example("train", index), **numbers}

        return tf.data.Dataset.counter(shard.examples_before(start)).map(draw)

    def _example(self, split, index):
        return {"image": self.images[split][index], "label": self.labels[split][index], "id": index}


def open_source(dataset, *, data_dir=None, holdout=0.1, manual_dir=None):
    """Opens a data set by name.

    Args:
        dataset: "digits" (scikit-learn's 1,797 scans, with a fixed split), "folder:PATH" (see
            `class_folders`), or the name of a TFDS data set (see `records`).
        data_dir: where TFDS keeps its data sets; default: TFDS's own place.
        holdout: the share held out where the data set has no validation part; of a folder also
            (2, 5), the second of five folds; or None.
        manual_dir: a folder of files downloaded by hand, to prepare a TFDS data set from.
    """
    if dataset in ("", "folder:"):
        raise ValueError(
            f"The data set {dataset!r} names nothing; give digits, folder:PATH or a TFDS name."
        )
    if dataset.startswith("coco:"):
        raise ValueError(f"{dataset} has boxes, for a detector; train one with `pit-keras detect`.")
    if isinstance(holdout, tuple):
        if not dataset.startswith("folder:"):
            raise ValueError(f"Folds need folder:PATH with PATH/CLASS/*; got {dataset}.")
    elif holdout is not None and not 0 < holdout < 1:
        raise ValueError(f"The held-out share must be between 0 and 1, got {holdout}.")
    if dataset == "digits" or dataset.startswith("folder:"):
        refuse_manual_dir(dataset, manual_dir)
        return _open_digits() if dataset == "digits" else _open_folder(dataset, holdout)
    # Imported here because tensorflow_datasets is slow to import and needed by few.
    from pit_keras.data.records import open_records

    return open_records(dataset, data_dir=data_dir, holdout=holdout, manual_dir=manual_dir)


def oriented(source, apply_orientation):
    """`Source.oriented`; it logs how many files carry an orientation that turns them, if any does.

    Of many files an even sample is looked at. Records are not searched.
    """
    source = source.oriented(apply_orientation)
    if not isinstance(source, ArraySource) or not source.is_encoded:
        return source
    every = max(1, -(-sum(source.sizes.values()) // MOST_LOOKED_AT))
    paths = [path for images in source.images.values() for path in images[::every].numpy()]
    if count := count_turned(paths):
        words = f"{count:,} of {len(paths):,} images" + (" looked at" if every > 1 else "")
        remedy = "" if apply_orientation else f"not applied; train with {SETTING}=true to turn them"
        remark = "%s: %s carry an EXIF orientation, which is %s."
        logger.warning(remark, source.name, words, remedy or "applied")
    return source


def refuse_manual_dir(dataset, manual_dir):
    if manual_dir:
        raise ValueError(f"--manual_dir={manual_dir} is for TFDS; leave it out with {dataset}.")


def _open_digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    # 8 x 8 grey levels x in 0..16 become floor(255 x / 16 + 1/2) in all three channels.
    grey = (images.reshape(-1, 8, 8, 1).astype("int64") * 255 + 8) // 16
    pixels = grey.astype("uint8").repeat(3, axis=-1)  # (N, 8, 8, 1) -> (N, 8, 8, 3)
    parts = {"train": slice(-DIGITS_HELD_OUT), "val": slice(-DIGITS_HELD_OUT, None)}
    return _array_source(
        "digits",
        tuple(map(str, range(10))),
        {split: pixels[part] for split, part in parts.items()},
        {split: labels[part] for split, part in parts.items()},
        tf.uint8,
    )


def _open_folder(dataset, holdout):
    left_out = collections.Counter()
    class_names, paths, labels = list_folder(dataset.removeprefix("folder:"), holdout, left_out)
    if left_out:
        logger.warning(
            "%s: left out %s; only JPEG and PNG files in class folders are read.",
            dataset,
            in_words(left_out),
        )
    paths = {split: encoded(paths) for split, paths in paths.items()}
    return _array_source(dataset, class_names, paths, labels, tf.string, dict(left_out))


def _array_source(name, class_names, images, labels, dtype, left_out=None):
    with tf.device("CPU"):  # the input pipeline runs there
        return ArraySource(
            name,
            class_names,
            {split: tf.constant(part, dtype) for split, part in images.items()},
            {split: tf.constant(part, tf.int64) for split, part in labels.items()},
            left_out=left_out or {},
        )
