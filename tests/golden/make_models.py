"""Regenerates models.npz: logits and stage outputs of timm's PyTorch models on fixed weights.

pip install torch timm
python tests/golden/make_models.py
"""

import pathlib

import numpy as np
import timm
import torch
from fixed_weights import TIMM_NAMES, fixed_images, fixed_state_dict, sampled

OUTPUT = pathlib.Path(__file__).with_name("models.npz")


def main():
    images = torch.from_numpy(fixed_images()).permute(0, 3, 1, 2)
    arrays = {}
    for name, timm_name in TIMM_NAMES.items():
        model = timm.create_model(timm_name).eval()
        state = fixed_state_dict(
            {key: tuple(value.shape) for key, value in model.state_dict().items()}
        )
        model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
        with torch.inference_mode():
            arrays[f"{name}/logits"] = model(images).numpy()
            stages = {"n": [11]} if name.startswith("vit") else {}
            maps = model.forward_intermediates(
                images, indices=stages.get("n"), norm=False, intermediates_only=True
            )
        for stage, feature_map in enumerate(maps, 1):
            arrays[f"{name}/stage{stage}"] = sampled(feature_map.permute(0, 2, 3, 1))
        arrays[f"{name}/keys"] = np.array(
            [f"{key} {' '.join(map(str, value.shape))}" for key, value in state.items()]
        )
        print(name, f"logits up to {np.abs(arrays[f'{name}/logits']).max():.2f}")
    np.savez_compressed(OUTPUT, **arrays)
    print(f"Written to {OUTPUT}, {OUTPUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
