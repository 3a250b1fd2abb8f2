"""The classes of a data set and of a model, matched by their names and never by their places."""

import dataclasses
import difflib
import unicodedata

import tensorflow as tf

from pit_keras import imagenet
from pit_keras.data.source import EVERYTHING, Source, as_written


def comparable(names):
    """Class names as they are compared: ImageNet's in words, and all in one form of Unicode."""
    return [unicodedata.normalize("NFC", name) for name in imagenet.in_words(names)]


def labels_in(class_names, source, owner="the model"):
    """The place of each class of a data set among a model's classes, which may be more.

    A ValueError names the classes that the model lacks, and those that have a name twice.
    """
    ours, theirs = comparable(class_names), comparable(source.class_names)
    if ours == theirs:
        return list(range(len(ours)))
    if ours == [f"class {index}" for index in range(len(ours))]:
        raise ValueError(
            f"{owner} has no class names to match those of {source.name} with; give them in the "
            "order of its outputs, one a line, with --classes=FILE."
        )
    lacking = [name for name in theirs if name not in ours]
    if lacking:
        near = difflib.get_close_matches(lacking[0].casefold(), [o.casefold() for o in ours], n=1)
        near = [name for name in ours if name.casefold() in near]
        which = f"perhaps {near[0]!r} is meant" if near else f"it has {listing(ours)}"
        raise ValueError(
            f"{source.name} has {listing(lacking)} among its {len(theirs)} classes, which {owner} "
            f"lacks; {which}. Rename or leave out what is not of its {len(ours)} classes."
        )
    if len(set(ours)) < len(ours) or len(set(theirs)) < len(theirs):
        raise ValueError(f"Classes of {source.name} or {owner} share a name; rename them.")
    return [ours.index(name) for name in theirs]


def listing(names, limit=5):
    """`'a', 'b' and 7 more`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(map(repr, names[:limit]))}{more}"


@dataclasses.dataclass(frozen=True, eq=False)
class RelabelledSource(Source):
    """A data set whose labels are places among other `class_names`."""

    source: Source
    class_names: tuple[str, ...]
    labels: tuple[int, ...]  # of each class of `source`

    name = property(lambda self: self.source.name)
    sizes = property(lambda self: self.source.sizes)
    is_encoded = property(lambda self: self.source.is_encoded)
    left_out = property(lambda self: self.source.left_out)
    apply_orientation = property(lambda self: self.source.apply_orientation)

    def oriented(self, apply_orientation):
        return dataclasses.replace(self, source=self.source.oriented(apply_orientation))

    def load(self, image, choose_box=None):
        return self.source.load(image, choose_box)

    def describe(self, split, example_id):
        return self.source.describe(split, example_id)

    @as_written
    def scan(self, split, shard=EVERYTHING):
        return self.source.scan(split, shard).map(self._relabelled)

    @as_written
    def train_stream(self, *arguments, **options):
        return self.source.train_stream(*arguments, **options).map(self._relabelled)

    def _relabelled(self, element):
        # A label outside the classes stays outside, see `unreadable.load_images`.
        labels, label = tf.constant(self.labels, tf.int64), element["label"]
        is_known = (label >= 0) & (label < len(self.labels))
        known = tf.gather(labels, tf.where(is_known, label, 0))
        return {**element, "label": tf.where(is_known, known, -1)}


def with_classes(source, class_names):
    """A data set with the labels of a model of some classes, see `labels_in`."""
    labels = labels_in(class_names, source)
    if labels == list(range(len(class_names))):
        return source
    return RelabelledSource(source, tuple(class_names), tuple(labels))
