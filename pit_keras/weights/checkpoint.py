"""A checkpoint in Keras' layout, wherever it came from."""

import dataclasses

import numpy as np


class Misfit(ValueError):
    """A checkpoint does not fit the model that it is loaded into."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The values of a checkpoint by the paths of Keras' variables.

    Attributes:
        source: What messages call it, such as its file.
        values: Variable paths to arrays in Keras' layout. Heads are there even if the model that it
            is meant for has none.
        names: Variable paths to what the tensors are called in the file.
        grid: Height and width that its positions were embedded for, or None where the file does not
            tell.
    """

    source: str
    values: dict[str, np.ndarray]
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    grid: tuple[int, int] | None = None

    def name(self, path):
        """What the file calls the tensor of a variable."""
        return self.names.get(path, path)

    def check_finite(self):
        """Raises ValueError if a value is NaN or infinite, naming the tensor."""
        for path, value in self.values.items():
            if not np.isfinite(value).all():
                raise ValueError(
                    f"{self.source}: tensor {self.name(path)} holds values that are not finite "
                    "(NaN or infinite)."
                )


def listed(names):
    """The first few of many names, for a message."""
    return ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
