"""Maps that are the same wherever they are made, and the grids that they are resampled to."""

import numpy as np

# From grid, to grid: larger, smaller, one of each, rectangles, by whole factors and not.
GRIDS = [
    ((27, 27), (49, 74)),
    ((27, 27), (11, 17)),
    ((14, 14), (28, 7)),
    ((31, 16), (31, 40)),
    ((7, 5), (3, 1)),
    ((1, 2), (4, 3)),
]
CHANNELS = 2


def roundings_of_resampling(grid):
    """How many roundings may stand between two ways of resampling a map of this grid.

    On each axis a value is a mean of four values, or of what stands for them. Their weights are
    cubic polynomials of the places, with ten roundings of numbers up to 10; PyTorch rounds the
    places themselves, numbers up to the side, three times.
    """
    return sum(4 * (3 * side + 10) for side in grid)


def fixed_map(grid):
    """A map (1, h, w, C) that needs no file."""
    generator = np.random.Generator(np.random.PCG64(grid[0] * 100 + grid[1]))
    return generator.standard_normal((1, *grid, CHANNELS), dtype=np.float32)
