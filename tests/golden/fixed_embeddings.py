"""Position embeddings and input kernels that are the same wherever they are made."""

import numpy as np

# Grids of PiT (27 wide at 224, 31 for PiT-B) and of ViT (14), enlarged, reduced, to rectangles and
# for other strides.
MAPS = (
    ((27, 27), (47, 47)),
    ((31, 31), (20, 54)),
    ((9, 13), (7, 5)),
    ((5, 4), (1, 1)),
)
SEQUENCES = (  # number of tokens, old grid, new grid
    (1, (14, 14), (24, 24)),
    (2, (14, 14), (7, 21)),
    (1, (14, 14), (28, 7)),  # as many positions as before
    (2, (6, 6), (3, 2)),
)
INPUT_CHANNELS = (1, 2, 3, 4, 7)
WIDTH = 3


def fixed_embedding(*positions):
    """A position embedding (1, positions..., C)."""
    generator = np.random.Generator(np.random.PCG64(13))
    return generator.standard_normal((1, *positions, WIDTH), dtype=np.float32)


def fixed_kernel():
    """A patch embedding's kernel (h, w, 3, C)."""
    return np.random.Generator(np.random.PCG64(17)).standard_normal((4, 4, 3, 5), dtype=np.float32)
