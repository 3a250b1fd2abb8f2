"""Data sets stored by TensorFlow Datasets (TFDS), read from their TFRecord files."""

import abc
import bisect
import dataclasses
import functools
import itertools
import os
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from pit_keras.data.preprocessing import decode, decode_box
from pit_keras.data.source import EVERYTHING, Source
from pit_keras.data.tfds_builders import prepared_builder

SHUFFLE_BUFFER = 8192  # encoded records: about 0.9 GB of ImageNet
FILES_READ_AT_ONCE = 16  # fixed, because the order of the records depends on it
FILES_PER_WORKER = 8  # with fewer, a worker's examples would be too much the same in every epoch
SPLIT_SEED = (0, 0)  # of the held-out share, the same in every run


@dataclasses.dataclass(frozen=True)
class RecordSplit:
    """A part of a stored split.

    A record belongs to it when its rank in a fixed pseudo-random permutation of all records lies in
    `ranks`; `range(n)` takes all.
    """

    files: tuple[str, ...]
    lengths: tuple[int, ...]  # records in each file
    ranks: range

    @property
    def first_ids(self):
        """The id of each file's first record: records are numbered in the order of the files."""
        return (0, *itertools.accumulate(self.lengths))[:-1]

    @functools.cached_property
    def kept(self):
        """How many records of each file belong to this part: int64 (files,)."""
        if self.is_whole:
            return np.array(self.lengths, np.int64)
        total = sum(self.lengths)
        with tf.init_scope():  # eagerly, also where a pipeline's function is being traced
            held = self._holds(tf.range(total, dtype=tf.int64)).numpy()
        held_before = np.insert(np.cumsum(held), 0, 0)
        return np.diff(held_before[[*self.first_ids, total]])

    @property
    def is_whole(self):
        return len(self.ranks) == sum(self.lengths)

    def records(self, file_order=None, sample=None):
        """The (id, serialised example) pairs, files interleaved in the order of `file_order`.

        `sample`: a pair (count, seed), to give only so many, of which the seed (2,) decides.
        """
        files = self._in_order(file_order, self.files, self.first_ids)
        records = self._belonging(_interleaved(files, _numbered_records))
        if sample is not None:
            records = records.filter(lambda record_id, _: self._is_sampled(record_id, *sample))
        return records

    def share(self, shard, file_order=None, sample=None):
        """As `records`, those of one worker, who reads no other files (but for one at either end).

        The shares follow each other in the order of the files, are equal up to one record, and
        `sample` is drawn from the share.
        """
        begin, end = (
            len(self.ranks) * bound // shard.count for bound in (shard.index, shard.index + 1)
        )
        files, first_ids, kept = self._in_order(file_order, self.files, self.first_ids, self.kept)
        before = tf.cumsum(kept, exclusive=True)  # the number of each file's first record
        first, last = tf.maximum(before, begin), tf.minimum(before + kept, end)
        wanted = [
            tf.boolean_mask(values, first < last)
            for values in (files, first_ids, before, first, last)
        ]

        def of_file(file, first_id, before, first, last):
            records = self._belonging(_numbered_records(file, first_id)).enumerate(before)
            return records.skip(first - before).take(last - first)

        numbered = _interleaved(wanted, of_file)  # (number, (id, serialised example))
        if sample is not None:
            count, seed = sample
            numbered = numbered.filter(
                lambda number, _: _shuffled(number - begin, seed, end - begin) < count
            )
        return numbered.map(lambda _, record: record)

    def _in_order(self, file_order, files, *numbers):
        """Tensors with an entry for each file, in another order if there is one."""
        tensors = [tf.constant(files), *(tf.constant(values, tf.int64) for values in numbers)]
        if file_order is None:
            return tensors
        return [tf.gather(values, file_order) for values in tensors]

    def _belonging(self, records):
        if self.is_whole:
            return records
        return records.filter(lambda record_id, _: self._holds(record_id))

    def _holds(self, record_id):
        rank = self._rank(record_id)
        return (self.ranks.start <= rank) & (rank < self.ranks.stop)

    def _is_sampled(self, record_id, count, seed):
        number = self._rank(record_id) - self.ranks.start
        return _shuffled(number, seed, len(self.ranks)) < count

    def _rank(self, record_id):
        return _shuffled(record_id, tf.constant(SPLIT_SEED, tf.int64), sum(self.lengths))


def _interleaved(files, records_of):
    """The records of many files; `files` are the tensors whose entries `records_of` takes."""
    return tf.data.Dataset.from_tensor_slices(tuple(files)).interleave(
        records_of,
        cycle_length=FILES_READ_AT_ONCE,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _numbered_records(file, first_id):
    return tf.data.TFRecordDataset(file).enumerate(first_id)


def _shuffled(index, seed, size):
    """Where a permutation of `range(size)` takes an index."""
    return tf.random.experimental.index_shuffle(index, seed, max_index=size - 1)


@dataclasses.dataclass(frozen=True, eq=False)
class RecordSource(Source):
    """A prepared TFDS data set; its `features` are reduced to an image and what is wanted of it."""

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, RecordSplit]
    features: Any
    image_key: str

    is_encoded = True

    @property
    def sizes(self):
        return {name: len(split.ranks) for name, split in self.splits.items()}

    def load(self, image, choose_box=None):
        return decode_box(image, choose_box) if choose_box else decode(image)

    def describe(self, split, example_id):
        stored = self.splits[split]
        index = bisect.bisect_right(stored.first_ids, example_id) - 1
        record = example_id - stored.first_ids[index]
        return f"record {record} of {os.path.basename(stored.files[index])}"

    def scan(self, split, shard=EVERYTHING):
        stored = self.splits[split]
        if _deals_files(stored, shard):
            return stored.share(shard).map(self._parse)
        records = stored.records()
        if shard.count > 1:
            own = records.enumerate().filter(lambda position, _: shard.holds(position))
            records = own.map(lambda _, record: record)
        return records.map(self._parse)

    def _train_stream(self, seed, start, length, views, shard):
        """Where there are files enough, a worker reads its own only, dealt anew in each epoch.

        Otherwise each reads all records, undecoded, and keeps its own.
        """
        deals = _deals_files(self.splits["train"], shard) and not length % (
            shard.count * shard.block
        )
        if deals:
            start, length = shard.examples_before(start), length // shard.count
        stream = self._views(seed, start, length, views, shard if deals else EVERYTHING)
        if deals:
            stream = stream.map(lambda own: {**own, "position": shard.position_of(own["position"])})
        elif shard.count > 1:
            stream = stream.filter(lambda element: shard.holds(element["position"]))
        return stream.map(lambda element: {**element, **self._parse(*element.pop("record"))})

    def _views(self, seed, start, length, views, shard):
        """The records that all or one worker draws, with "epoch", "position" and "view".

        Positions and the epoch's length are those of the stream itself. It enters its first epoch
        by reading over the records before `start`.
        """
        draws = -(-length // views)  # of an epoch
        first_epoch, begun = divmod(start, length)
        sampled = draws if views > 1 else None

        def epoch_stream(epoch):
            def element(number, record, view=0):
                position = epoch * length + number * views + view
                numbers = {"epoch": epoch, "position": position, "view": tf.cast(view, tf.int64)}
                return {"record": record, **numbers}

            def copies(number, record):
                left = length - number * views  # of the epoch
                order = tf.data.Dataset.range(tf.minimum(left, views))
                return order.map(lambda view: element(number, record, view))

            done = tf.where(epoch == first_epoch, tf.constant(begun, tf.int64), 0)
            order = self._shuffled_records(seed, epoch, sampled, shard).take(draws)
            order = order.enumerate().skip(done // views)
            if views == 1:  # several times as fast as a data set of one copy for each
                return order.map(element)
            return order.flat_map(copies).skip(done % views)

        return tf.data.Dataset.counter(first_epoch).flat_map(epoch_stream)

    def _shuffled_records(self, seed, epoch, sampled, shard):
        """All records that the shard's worker reads in an epoch, or so many, drawn evenly.

        The first records to leave the buffer are not: they are of those that entered it first.
        """
        split = self.splits["train"]
        epoch_seed = tf.stack([tf.cast(seed, tf.int64), epoch])
        files = tf.range(len(split.files))
        file_order = tf.random.experimental.stateless_shuffle(files, epoch_seed)
        # Dataset.shuffle mixes the seed of its graph, this one function's, into its own. Setting
        # it keeps the order independent of a global seed.
        tf.random.set_seed(1)
        buffer_seed = tf.random.stateless_uniform(
            (), epoch_seed, minval=None, maxval=None, dtype=tf.int64
        )
        sample = None if sampled is None else (sampled, epoch_seed)
        if shard.count > 1:
            records = split.share(shard, file_order, sample)
        else:
            records = split.records(file_order, sample)
        return records.shuffle(SHUFFLE_BUFFER, seed=buffer_seed, reshuffle_each_iteration=False)

    def _deserialised(self, record):
        """The features of a record, the image encoded."""
        return self.features.deserialize_example(
            record, decoders={self.image_key: tfds.decode.SkipDecoding()}
        )

    @abc.abstractmethod
    def _parse(self, record_id, record):
        """The element of `scan` that a serialised example is."""


@dataclasses.dataclass(frozen=True, eq=False)
class LabelRecordSource(RecordSource):
    """Records with one label each."""

    label_key: str

    def _parse(self, record_id, record):
        example = self._deserialised(record)
        return {
            "image": example[self.image_key],
            "label": tf.cast(example[self.label_key], tf.int64),
            "id": record_id,
        }


def _deals_files(split, shard):
    """Whether each worker reads files of its own."""
    return shard.count > 1 and len(split.files) >= FILES_PER_WORKER * shard.count


def open_records(name, *, data_dir=None, holdout=0.1, manual_dir=None, only=None):
    """Opens a TFDS data set with one image and one class label per example.

    The training split is "train". The validation split is "validation", else "test", else the
    share `holdout` of "train", chosen by record number. Of several images or labels the data set's
    supervised keys decide.

    Args:
        name, data_dir, manual_dir: see `tfds_builders.prepared_builder`.
        holdout: see `labelled_images.open_source`.
        only: the one stored split to open, as "val", of a data set that is made for testing alone;
            "train" is then empty.

    Raises:
        ValueError: no such data set, not prepared, not stored as TFRecord, with files missing, or
            without what is needed; the sentence says which, and what to do.
    """
    info = prepared_info(name, data_dir, manual_dir)
    image_key = find_image_key(info, name)
    label_key = _feature_key(info, name, tfds.features.ClassLabel, 1)
    splits = _splits(info.splits, name, holdout) if only is None else _only(info.splits, name, only)
    check_complete(splits.values(), name)
    wanted = tfds.decode.PartialDecoding({image_key: True, label_key: True})
    return LabelRecordSource(
        name=name,
        class_names=tuple(info.features[label_key].names),
        splits=splits,
        features=wanted.extract_features(info.features),
        image_key=image_key,
        label_key=label_key,
    )


def prepared_info(name, data_dir=None, manual_dir=None):
    """What TFDS knows of a data set that is prepared as TFRecord files, see `prepared_builder`.

    Raises:
        ValueError: there is none.
    """
    info = prepared_builder(name, data_dir, manual_dir).info
    if info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ValueError(
            f"The TFDS data set {name} is stored as {info.file_format.value}; only tfrecord can be "
            "read, prepare it with `--file_format=tfrecord`."
        )
    return info


def find_image_key(info, name):
    """The key of the one image.

    Raises:
        ValueError: there is none, or several, or it has not 8 or 16 bits.
    """
    key = _feature_key(info, name, tfds.features.Image, 0)
    if info.features[key].dtype not in (np.uint8, np.uint16):
        raise ValueError(f"The images of the TFDS data set {name} are not of 8 or 16 bits.")
    return key


def _feature_key(info, name, kind, position):
    """The key of the one feature of a kind; of several, the one among the supervised keys."""
    features = info.features if isinstance(info.features, tfds.features.FeaturesDict) else {}
    keys = [key for key, feature in features.items() if isinstance(feature, kind)]
    if len(keys) > 1 and info.supervised_keys and info.supervised_keys[position] in keys:
        keys = [info.supervised_keys[position]]
    if len(keys) != 1:
        found = f"several ({', '.join(keys)})" if keys else "none"
        raise ValueError(
            f"The TFDS data set {name} must have one {kind.__name__} feature, it has {found}."
        )
    return keys[0]


def _splits(infos, name, holdout):
    """Maps "train" and "val" to the stored splits, or to two parts of the one stored split."""
    if "train" not in infos:
        raise ValueError(
            f"The TFDS data set {name} has no train split; it has {', '.join(infos) or 'none'}."
        )
    train = whole_split(infos["train"])
    for held_out in ("validation", "test"):
        if held_out in infos:
            return {"train": train, "val": whole_split(infos[held_out])}
    if holdout is None:
        return {"train": train, "val": dataclasses.replace(train, ranks=range(0))}
    if not 0 < holdout < 1:
        raise ValueError(f"The held-out share must be between 0 and 1, got {holdout}.")
    size = len(train.ranks)
    count = min(max(round(holdout * size), 1), size - 1)
    return {
        "train": dataclasses.replace(train, ranks=range(count, size)),
        "val": dataclasses.replace(train, ranks=range(count)),
    }


def _only(infos, name, split):
    """Maps "val" to one stored split, and "train" to nothing."""
    if split not in infos:
        raise ValueError(
            f"The TFDS data set {name} has no {split} split; it has {', '.join(infos) or 'none'}."
        )
    val = whole_split(infos[split])
    return {"train": dataclasses.replace(val, ranks=range(0)), "val": val}


def whole_split(info):
    """The `RecordSplit` of all records of a stored split."""
    return RecordSplit(
        files=tuple(map(str, info.filepaths)),
        lengths=tuple(info.shard_lengths),
        ranks=range(info.num_examples),
    )


def check_complete(splits, name):
    """Checks that the files of the splits are there, listing their folders once.

    Raises:
        ValueError: a file that has records is missing or empty, as after an interrupted copy.
    """
    # Two parts of one stored split have the same files.
    lengths = {
        os.path.split(file): length
        for split in splits
        for file, length in zip(split.files, split.lengths, strict=True)
    }
    stored = {folder: _files_with_content(folder) for folder in {folder for folder, _ in lengths}}
    lacking = [
        (folder, file)
        for (folder, file), length in lengths.items()
        if length and file not in stored[folder]
    ]
    if lacking:
        folder, file = lacking[0]
        raise ValueError(
            f"The TFDS data set {name} is incomplete: of its {len(lengths)} files {len(lacking)} "
            f"are missing or empty, the first is {file} in {folder}; copy them again, or delete "
            "the folder and prepare the data set anew."
        )


def _files_with_content(folder):
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.stat().st_size}
