"""Regenerates resampling.npz: maps resampled by PyTorch to other grids.

pip install torch
python tests/golden/make_resampling.py
"""

import pathlib

import numpy as np
import torch
from fixed_maps import GRIDS, fixed_map

OUTPUT = pathlib.Path(__file__).with_name("resampling.npz")


def main():
    arrays = {}
    for grid, new_grid in GRIDS:
        channels_first = torch.from_numpy(fixed_map(grid)).permute(0, 3, 1, 2)
        resampled = torch.nn.functional.interpolate(
            channels_first, new_grid, mode="bicubic", antialias=True, align_corners=False
        )
        arrays[f"{grid} {new_grid}"] = resampled.permute(0, 2, 3, 1).numpy()
    np.savez_compressed(OUTPUT, **arrays)
    print(f"Written to {OUTPUT}, {OUTPUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
