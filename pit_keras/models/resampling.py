"""Position embeddings on other grids: bicubic interpolation with antialiasing.

The numbers are those of PyTorch's `interpolate(mode="bicubic", antialias=True)`, with which timm
adapts position embeddings. The new sizes may be known only when the graph runs.
"""

from keras import ops

CUBIC_A = -0.5  # with antialiasing; PyTorch's bicubic without it has -0.75


def resampled(embedding_map, grid):
    """A map on another grid, computed in float32, (1, h, w, C) -> (1, H, W, C).

    `grid` is H and W: integers, or scalar tensors as `keras.ops.shape` gives them in a graph.
    """
    _, height, width, channels = embedding_map.shape
    if all(isinstance(side, int) for side in grid) and tuple(grid) == (height, width):
        return embedding_map
    rows = interpolation_matrix(height, grid[0])  # (H, h)
    columns = interpolation_matrix(width, grid[1])  # (W, w)
    x = ops.cast(embedding_map, "float32")
    x = ops.matmul(rows, ops.reshape(x, (height, width * channels)))  # -> (H, w * C)
    x = ops.matmul(columns, ops.reshape(x, (-1, width, channels)))  # -> (H, W, C)
    return ops.cast(x, embedding_map.dtype)[None]


def interpolation_matrix(size, new_size):
    """Weights (new_size, size) with which a line of `size` values gives one of `new_size`.

    Each row is the cubic kernel around the place of a new value, as wide as the larger of the two
    spacings, cut off at the ends and normalised to sum 1. For equal sizes it is the identity.
    """
    # The places j + 1/2 and (i + 1/2) * size / new_size subtracted over a common denominator: all
    # numbers are whole, hence exact, up to the one division.
    positions = 2 * ops.arange(size)[None, :] + 1
    places = 2 * ops.arange(new_size)[:, None] + 1
    distances = ops.cast(positions * new_size - places * size, "float32")
    weights = _cubic(distances / ops.cast(2 * ops.maximum(new_size, size), "float32"))
    return weights / ops.sum(weights, axis=1, keepdims=True)


def _cubic(x):
    """Keys' cubic convolution kernel; zero at all integers but 0, and from 2 on."""
    x = ops.abs(x)
    near = ((CUBIC_A + 2) * x - (CUBIC_A + 3)) * x * x + 1
    far = ((CUBIC_A * x - 5 * CUBIC_A) * x + 8 * CUBIC_A) * x - 4 * CUBIC_A
    return ops.where(x < 1, near, ops.where(x < 2, far, 0.0))
