"""The interface of all data sets, with one label an image or boxes, and how workers share them."""

import abc
import dataclasses

import tensorflow as tf

# Within it, functions given to a dataset are traced as they are written. Rewriting them so that
# `if` and `for` take tensors, which none here needs, takes seconds.
as_written = tf.autograph.experimental.do_not_convert


@dataclasses.dataclass(frozen=True)
class Shard:
    """The positions p of one worker: those with p // block % count == index.

    Positions count the examples of all workers together; the default shard holds all.
    """

    index: int = 0  # the worker's number
    count: int = 1  # workers
    block: int = 1  # examples of a global batch for each worker

    def holds(self, position):
        """Whether a position, an integer of Python or TensorFlow, belongs to the shard."""
        return position // self.block % self.count == self.index

    def examples_before(self, position):
        """How many of the shard's positions are smaller than a Python integer."""
        rounds, rest = divmod(position, self.block * self.count)
        return rounds * self.block + min(max(rest - self.index * self.block, 0), self.block)

    def position_of(self, number):
        """The position of the shard's example number 0, 1, ..., Python's or TensorFlow's."""
        turn, place = number // self.block, number % self.block
        return (turn * self.count + self.index) * self.block + place


EVERYTHING = Shard()  # of a single worker


class Source(abc.ABC):
    """A labelled image data set with the splits "train" and "val".

    It gives its examples as an endless shuffled stream for training, which can be entered anywhere,
    and as one pass over a split in a fixed order. The pipeline decides where pixels are loaded.
    """

    name: str  # that it was opened by
    class_names: tuple[str, ...]  # one for each label
    sizes: dict[str, int]  # examples: {"train": n, "val": m}
    is_encoded: bool  # whether `load` decodes a file, and so may fail
    left_out: dict[str, int] = {}  # noqa: RUF012  what lies beside the images, by kind
    apply_orientation: bool = False  # whether `load` turns photographs as EXIF says

    def oriented(self, apply_orientation):
        """The data set as it is, or as it is opened with another `apply_orientation`."""
        if apply_orientation == self.apply_orientation:
            return self
        return dataclasses.replace(self, apply_orientation=apply_orientation)

    @abc.abstractmethod
    def load(self, image, choose_box=None):
        """The pixels of an element's "image", uint8 (H, W, 3), or of a box of it.

        `choose_box` is that of `preprocessing.decode_box`.
        """

    @abc.abstractmethod
    def describe(self, split, example_id):
        """The file or record of an example, for messages."""

    @abc.abstractmethod
    def scan(self, split, shard=EVERYTHING):
        """One pass over a split in a fixed order: {"image", "label" int64, "id" int64}.

        "image" is what `load` takes: a path, encoded bytes or pixels. "id" is the example's number
        within its stored split. The shards of all workers together give each example once, none
        more than its part of as many full global batches as the split needs.
        """

    @abc.abstractmethod
    def train_stream(self, seed, start=0, length=None, views=1, shard=EVERYTHING):
        """An endless stream over shuffled epochs of the training split.

        Elements are those of `scan` with three more int64 scalars: "epoch", "position" (the
        elements given before, to all workers together) and "view". The stream from `start` is the
        tail of the stream from 0, for every shard.

        Args:
            start: the position of the first element, or of the shard's next one.
            length: the elements of an epoch, by default all examples. Each epoch has another order,
                so no example is left out for good.
            views: how often an example is given in succession, numbered by "view": repeated
                augmentation (Hoffer et al., CVPR 2020), as DeiT's RASampler does it on one device.
                An epoch draws fewer examples then, and may cut the views of the last one short.
            shard: the positions to give. In an epoch no two shards give the same view.
        """


class DetectionSource(Source):
    """A data set for detection: a `Source` whose elements have boxes in place of a label.

    "boxes", float32 (n, 4), are left, top, right and bottom in pixels of the stored image, clipped
    to it; "labels" are int64 (n,). These are the objects to train on, at most 100: no crowds, and
    no boxes without area.
    """

    category_ids: tuple[int, ...]  # each label's id in COCO's form; there may be gaps

    @abc.abstractmethod
    def image_id(self, split, example_id):
        """An example's id in COCO's form."""

    def most_objects(self):
        """The most objects of one training image, or None if unknown."""
        return None

    @abc.abstractmethod
    def ground_truth(self, split):
        """All annotations of a split as a dict in COCO's form, complete enough for pycocotools."""
