"""Regenerates adaptation.npz: what timm makes of position embeddings and input kernels.

pip install torch timm
python tests/golden/make_adaptation.py
"""

import pathlib

import numpy as np
import torch
from fixed_embeddings import INPUT_CHANNELS, MAPS, SEQUENCES, fixed_embedding, fixed_kernel
from timm.layers import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from timm.models import adapt_input_conv

OUTPUT = pathlib.Path(__file__).with_name("adaptation.npz")


def main():
    arrays = {}
    for old, new in MAPS:
        embedding = torch.from_numpy(fixed_embedding(*old))
        arrays[f"map {old} {new}"] = resample_abs_pos_embed_nhwc(embedding, new).numpy()
    for tokens, old, new in SEQUENCES:
        embedding = torch.from_numpy(fixed_embedding(tokens + old[0] * old[1]))
        arrays[f"sequence {tokens} {old} {new}"] = resample_abs_pos_embed(
            embedding, new, old, num_prefix_tokens=tokens
        ).numpy()
    kernel = torch.from_numpy(fixed_kernel()).permute(3, 2, 0, 1)  # (h, w, 3, C) -> (C, 3, h, w)
    for channels in INPUT_CHANNELS:
        adapted = adapt_input_conv(channels, kernel)
        arrays[f"kernel {channels}"] = adapted.permute(2, 3, 1, 0).numpy()
    np.savez_compressed(OUTPUT, **arrays)
    print(f"Written to {OUTPUT}, {OUTPUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
