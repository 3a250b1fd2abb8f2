"""What every data set here can do, whether its images carry one label or boxes.

A source knows its classes and sizes and gives its examples in two ways: as an endless stream for
training, in a random order that can be entered anywhere, and as one pass over a split in a fixed
order. It does not touch the pixels: `Source.load` does, and the pipeline decides where.
"""

import abc
from collections.abc import Mapping

from pit_keras.data.sharding import Shard

EVERYTHING = Shard()  # of a single worker


class Source(abc.ABC):
    """A labelled image data set with the splits "train" and "val".

    Attributes:
        name: what it was opened as.
        class_names: one for each label.
        sizes: the number of examples, {"train": n, "val": m}.
        is_encoded: whether `load` reads and decodes a JPEG or PNG, and so may fail.
    """

    name: str
    class_names: tuple[str, ...]
    sizes: Mapping[str, int]
    is_encoded: bool

    @abc.abstractmethod
    def load(self, image, choose_box=None):
        """Turns the "image" of an element into its pixels, uint8 (H, W, 3).

        With `choose_box` (see `preprocessing.decode_box`) only those of a box are loaded.
        """

    @abc.abstractmethod
    def describe(self, split, example_id):
        """Names an example in a message: its file or its record."""

    @abc.abstractmethod
    def scan(self, split, shard=EVERYTHING):
        """One pass over a split in a fixed order: {"image", "label" int64, "id" int64}.

        "image" is what `load` takes: a path, encoded bytes or pixels. "id" is the example's number
        within its split (for a TFDS data set, within the stored split that it is part of).

        The shards of all workers together give each example once. None gives more than its part of
        as many full global batches as the split needs.
        """

    def train_stream(self, seed, start=0, length=None, views=1, shard=EVERYTHING):
        """An endless stream over shuffled epochs of the training split.

        Elements are those of `scan` with three more int64 scalars: "epoch"; "position", the number
        of elements given since training began, to all workers together; and "view". The stream from
        `start` is the tail of the stream from 0, and so it is for every shard.

        With several views, an epoch draws a part of the examples only, and gives each of them so
        many times in succession, to be augmented each time anew: repeated augmentation (Hoffer et
        al., CVPR 2020), as DeiT's RASampler does it on one device.

        Args:
            seed: integer; with the epoch it decides the order.
            start: the position of the first element, or for a shard that has not got this one, of
                its next.
            length: how many elements an epoch gives; default as many as there are examples. Each
                epoch has another order, so none is left out for good.
            views: how often a drawn example is given, numbered from 0 by "view". The last one of an
                epoch may be given less often.
            shard: the positions to give. In an epoch no two shards give the same view of an
                example.

        Raises:
            ValueError: the training split has fewer examples than an epoch is to give, or a number
                is too small.
        """
        size = self.sizes["train"]
        length = size if length is None else length
        if not 1 <= length <= size:
            raise ValueError(f"An epoch of {self.name} draws 1 to {size} examples, not {length}.")
        if views < 1:
            raise ValueError(f"Each drawn example is given 1 time or more, not {views} times.")
        if start < 0:
            raise ValueError(f"A training stream starts at position 0 or later, not at {start}.")
        return self._train_stream(seed, start, length, views, shard)

    @abc.abstractmethod
    def _train_stream(self, seed, start, length, views, shard):
        """`train_stream` of arguments that were checked."""


class DetectionSource(Source):
    """A data set for detection: a `Source` whose elements have boxes in place of a label.

    These are "boxes", float32 (n, 4) of left, top, right and bottom in pixels of the stored image
    and clipped to it, and "labels", int64 (n,): the objects that are trained on, at most 100. No
    crowd and no box without area is among them.

    Attributes:
        category_ids: of each label the id that COCO's form calls it by; there may be gaps.
    """

    category_ids: tuple[int, ...]

    @abc.abstractmethod
    def image_id(self, split, example_id):
        """The id that COCO's form calls an example by."""

    def most_objects(self):
        """The most objects that one training image has; None where that is not known."""
        return None

    @abc.abstractmethod
    def ground_truth(self, split):
        """All annotations of a split as a dict in COCO's form, complete enough for pycocotools."""
