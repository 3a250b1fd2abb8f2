"""Where in a PyTorch checkpoint a variable's value is found."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a variable comes from: the keys of its tensors, and how they become its value."""

    variable: Any
    keys: tuple[str, ...]
    convert: Callable
