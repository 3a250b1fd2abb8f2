"""Which examples of the data each of several workers reads."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Shard:
    """Which part of every global batch a worker reads: positions with p // block % count == index.

    Positions p count all workers' examples together. The shard of a single worker holds all.

    Attributes:
        index: the worker's number, from 0.
        count: how many workers there are.
        block: how many examples of one global batch a worker gets.

    Raises:
        ValueError: a number is outside its range.
    """

    index: int = 0
    count: int = 1
    block: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count or self.block < 1:
            raise ValueError(
                f"A shard needs 0 <= index < count and a block of 1 or more, got index "
                f"{self.index}, count {self.count} and block {self.block}."
            )

    def holds(self, position):
        """Whether a position, an integer of Python or TensorFlow, is one of the shard's."""
        return position // self.block % self.count == self.index

    def examples_before(self, position):
        """How many of the shard's positions are smaller than a Python integer."""
        rounds, rest = divmod(position, self.block * self.count)
        return rounds * self.block + min(max(rest - self.index * self.block, 0), self.block)

    def position_of(self, number):
        """The position of the shard's own example of a number, from 0; Python's or TensorFlow's."""
        turn, place = number // self.block, number % self.block
        return (turn * self.count + self.index) * self.block + place
