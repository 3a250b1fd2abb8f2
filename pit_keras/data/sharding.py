"""Which examples of the data each of several workers reads."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Shard:
    """The positions p of one worker: those with p // block % count == index.

    Positions count the examples of all workers together; the default shard holds all.
    """

    index: int = 0  # the worker's number
    count: int = 1  # workers
    block: int = 1  # examples of a global batch for each worker

    def __post_init__(self):
        if not 0 <= self.index < self.count or self.block < 1:
            raise ValueError(f"{self} needs 0 <= index < count and a block of 1 or more.")

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
