"""A part of a data set that stands for the whole, where one pass over all of it takes too long."""

from pit_keras.data.source import EVERYTHING, Source


class EvenSample(Source):
    """Up to `count` examples of each split, evenly spaced, for evaluation.

    Folders and many data sets are in the order of their classes, so the first examples would
    belong to a few classes only.
    """

    def __init__(self, source, count):
        if count < 1:
            raise ValueError(f"A sample needs 1 image or more, got {count}.")
        self._source = source
        self.name, self.class_names = source.name, source.class_names
        self.is_encoded = source.is_encoded
        self.sizes = {split: min(size, count) for split, size in source.sizes.items()}

    def load(self, image, choose_box=None):
        return self._source.load(image, choose_box)

    def describe(self, split, example_id):
        return self._source.describe(split, example_id)

    def scan(self, split, shard=EVERYTHING):
        size, count = self._source.sizes[split], self.sizes[split]
        # Exactly `count` of `size` positions have a multiple of `count` with so small a remainder.
        chosen = (
            self._source.scan(split)
            .enumerate()
            .filter(lambda position, _: position * count % size < count)
            .take(count)  # so that what follows the last is not read
            .enumerate()
            .filter(lambda place, _: shard.holds(place))
        )
        return chosen.map(lambda _, example: example[1])

    def _train_stream(self, seed, start, length, views, shard):
        raise ValueError(f"A sample of {self.name} is for evaluation only.")
