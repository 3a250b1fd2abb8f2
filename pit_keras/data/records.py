"""Data sets stored by TensorFlow Datasets (TFDS), read from their TFRecord files."""

import abc
import bisect
import dataclasses
import functools
import itertools
import os

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from pit_keras.data.preprocessing import decode, decode_box
from pit_keras.data.source import EVERYTHING, Source, as_written
from pit_keras.data.tfds_builders import prepared_info

SHUFFLE_BUFFER = 8192  # encoded records: about 0.9 GB of ImageNet
FILES_READ_AT_ONCE = 16  # fixed, because the order of the records depends on it
FILES_PER_WORKER = 8  # with fewer, a worker's examples would be too much the same in every epoch
SPLIT_SEED = (0, 0)  # of the held-out share, the same in every run


@dataclasses.dataclass(frozen=True)
class RecordSplit:
    """The records of a stored split whose rank in a fixed permutation lies in `ranks`."""

    files: tuple[str, ...]
    lengths: tuple[int, ...]  # records in each file
    ranks: range  # range(n) takes all

    @property
    def first_ids(self):
        """The id of each file's first record: records are numbered in the order of the files."""
        return (0, *itertools.accumulate(self.lengths))[:-1]

    @functools.cached_property
    def kept(self):
        """How many records of each file belong to this part: int64 (files,)."""
        total = sum(self.lengths)
        with tf.init_scope():  # eagerly, also where a pipeline's function is being traced
            held = self._holds(tf.range(total, dtype=tf.int64)).numpy()
        held_before = np.insert(np.cumsum(held), 0, 0)
        return np.diff(held_before[[*self.first_ids, total]])

    @as_written
    def records(self, shard=EVERYTHING, file_order=None, sample=None):
        """The (id, serialised example) pairs of one worker, many files interleaved.

        The shares of the workers follow each other in the order of the files and are equal up to
        one record; a worker reads no other files (but for one at each end). `file_order` is another
        order than the stored one. `sample` (count, seed) gives only so many of the share; the seed
        (2,) decides which.
        """
        begin, end = (
            len(self.ranks) * bound // shard.count for bound in (shard.index, shard.index + 1)
        )
        if file_order is None:
            file_order = tf.range(len(self.files))
        columns = (self.files, np.array(self.first_ids), self.kept)
        files, first_ids, kept = (tf.gather(column, file_order) for column in columns)
        before = tf.cumsum(kept, exclusive=True)  # the number of each file's first record
        first, last = tf.maximum(before, begin), tf.minimum(before + kept, end)

        def of_file(file, first_id, before, first, last):
            records = tf.data.TFRecordDataset(file).enumerate(first_id)
            if len(self.ranks) < sum(self.lengths):
                records = records.filter(lambda record_id, _: self._holds(record_id))
            return records.enumerate(before).skip(first - before).take(last - first)

        wanted = (
            tf.boolean_mask(column, first < last)
            for column in (files, first_ids, before, first, last)
        )
        numbered = tf.data.Dataset.from_tensor_slices(tuple(wanted)).interleave(
            of_file,
            cycle_length=FILES_READ_AT_ONCE,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )  # (number, (id, serialised example))
        if sample is not None:
            count, seed = sample
            numbered = numbered.filter(
                lambda number, _: _shuffled(number - begin, seed, end - begin) < count
            )
        return numbered.map(lambda _, record: record)

    def _holds(self, record_id):
        rank = _shuffled(record_id, tf.constant(SPLIT_SEED, tf.int64), sum(self.lengths))
        return (self.ranks.start <= rank) & (rank < self.ranks.stop)


def _shuffled(index, seed, size):
    """Where a permutation of `range(size)` takes an index."""
    return tf.random.experimental.index_shuffle(index, seed, max_index=size - 1)


@dataclasses.dataclass(frozen=True, eq=False)
class RecordSource(Source):
    """A prepared TFDS data set; `features` holds only the image and what else is wanted."""

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, RecordSplit]
    features: tfds.features.FeatureConnector
    image_key: str
    apply_orientation: bool = dataclasses.field(default=False, kw_only=True)

    is_encoded = True

    @property
    def sizes(self):
        return {name: len(split.ranks) for name, split in self.splits.items()}

    def load(self, image, choose_box=None):
        turns = self.apply_orientation
        return decode_box(image, choose_box, turns) if choose_box else decode(image, turns)

    def describe(self, split, example_id):
        stored = self.splits[split]
        index = bisect.bisect_right(stored.first_ids, example_id) - 1
        record = example_id - stored.first_ids[index]
        return f"record {record} of {os.path.basename(stored.files[index])}"

    @as_written
    def scan(self, split, shard=EVERYTHING):
        stored = self.splits[split]
        if _deals_files(stored, shard):
            return stored.records(shard).map(self._parse)
        own = stored.records().enumerate().filter(lambda position, _: shard.holds(position))
        return own.map(lambda _, record: self._parse(*record))

    @as_written
    def train_stream(self, seed, start=0, length=None, views=1, shard=EVERYTHING):
        """Deals each worker files of its own, anew in each epoch, where there are enough.

        Otherwise each reads all records, undecoded, and keeps its own.
        """
        length = length or self.sizes["train"]
        deals = _deals_files(self.splits["train"], shard)
        deals &= not length % (shard.count * shard.block)
        if deals:
            start, length = shard.examples_before(start), length // shard.count
        stream = self._views(seed, start, length, views, shard if deals else EVERYTHING)
        if deals:
            stream = stream.map(lambda own: {**own, "position": shard.position_of(own["position"])})
        elif shard.count > 1:
            stream = stream.filter(lambda element: shard.holds(element["position"]))
        return stream.map(lambda element: {**element, **self._parse(*element.pop("record"))})

    def _views(self, seed, start, length, views, shard):
        """The records that all workers or one draw, with "epoch", "position" and "view".

        Positions and `length` are those of this stream. It enters its first epoch by reading over
        the records before `start`.
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
        """The records that a worker reads in an epoch: all, or so many, drawn evenly.

        The first to leave the buffer would not be drawn evenly: they are of those that entered it
        first.
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
        records = split.records(shard, file_order, sample)
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
    label_key: str

    def _parse(self, record_id, record):
        example = self._deserialised(record)
        return {
            "image": example[self.image_key],
            "label": tf.cast(example[self.label_key], tf.int64),
            "id": record_id,
        }


def _deals_files(split, shard):
    return shard.count > 1 and len(split.files) >= FILES_PER_WORKER * shard.count


def open_records(name, *, data_dir=None, holdout=0.1, manual_dir=None, only=None):
    """Opens a TFDS data set with one image and one class label per example.

    The validation split is "validation", else "test", else the share `holdout` of "train"; `only`
    is the one stored split to open, as "val", of a data set for testing alone. Where there are
    several images or labels, the data set's supervised keys decide. See `prepared_info`, also for
    the errors.
    """
    info = prepared_info(name, data_dir, manual_dir)
    image_key = find_image_key(info, name)
    label_key = _feature_key(info, name, tfds.features.ClassLabel, 1)
    if only is None:
        splits = _splits(info, name, holdout)
    else:
        (val,) = whole_splits(info, name, only)
        splits = {"train": dataclasses.replace(val, ranks=range(0)), "val": val}
    wanted = tfds.decode.PartialDecoding({image_key: True, label_key: True})
    return LabelRecordSource(
        name=name,
        class_names=tuple(info.features[label_key].names),
        splits=splits,
        features=wanted.extract_features(info.features),
        image_key=image_key,
        label_key=label_key,
    )


def find_image_key(info, name):
    key = _feature_key(info, name, tfds.features.Image, 0)
    if info.features[key].dtype not in (np.uint8, np.uint16):
        raise ValueError(f"The images of the TFDS data set {name} are not of 8 or 16 bits.")
    return key


def _feature_key(info, name, kind, position):
    """The key of the one feature of a kind; of several, the one among the supervised keys."""
    features = info.features if isinstance(info.features, tfds.features.FeaturesDict) else {}
    keys = [key for key, feature in features.items() if isinstance(feature, kind)]
    if len(keys) > 1 and info.supervised_keys and info.supervised_keys[position] in keys:
        return info.supervised_keys[position]
    return the_one(keys, name, f"{kind.__name__} feature")


def the_one(keys, name, kind):
    if len(keys) != 1:
        found = f"several ({', '.join(keys)})" if keys else "none"
        raise ValueError(f"The TFDS data set {name} must have one {kind}, it has {found}.")
    return keys[0]


def _splits(info, name, holdout):
    """Maps "train" and "val" to the stored splits, or to two parts of the one stored split."""
    for held_out in ("validation", "test"):
        if held_out in info.splits:
            train, val = whole_splits(info, name, "train", held_out)
            return {"train": train, "val": val}
    (train,) = whole_splits(info, name, "train")
    size = len(train.ranks)
    count = 0 if holdout is None else min(max(round(holdout * size), 1), size - 1)
    return {
        "train": dataclasses.replace(train, ranks=range(count, size)),
        "val": dataclasses.replace(train, ranks=range(count)),
    }


def whole_splits(info, name, *stored):
    """The `RecordSplit`s of all records of stored splits, whose files are all there."""
    lengths = {}
    for split in stored:
        if split not in info.splits:
            raise ValueError(
                f"The TFDS data set {name} has no {split} split; it has "
                f"{', '.join(info.splits) or 'none'}."
            )
        paths = map(str, info.splits[split].filepaths)
        lengths[split] = dict(zip(paths, info.splits[split].shard_lengths, strict=True))
    files = {file: length for split in stored for file, length in lengths[split].items()}
    # An interrupted copy leaves files missing or empty.
    lacking = [
        file
        for file, length in files.items()
        if length and not (os.path.isfile(file) and os.path.getsize(file))
    ]
    if lacking:
        raise ValueError(
            f"The TFDS data set {name} lacks {len(lacking)} of its {len(files)} files, or they are "
            f"empty, first {lacking[0]}; copy them again, or delete the folder and prepare it anew."
        )
    return [
        RecordSplit(tuple(files), tuple(files.values()), range(sum(files.values())))
        for files in lengths.values()
    ]
