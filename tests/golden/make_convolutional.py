"""Regenerates convolutional.npz: logits and stage outputs of timm's ResNet-50 and RegNetY-16GF on
fixed weights, with BatchNorm's statistics from the checkpoint and from the batch.

pip install torch timm
python tests/golden/make_convolutional.py
"""

import pathlib
import re

import numpy as np
import timm
import torch
from fixed_weights import fixed_images, fixed_state_dict, sampled

OUTPUT = pathlib.Path(__file__).with_name("convolutional.npz")
SIZE = (97, 64)  # odd maps and even ones
NETWORKS = {  # name in the file: timm's name and arguments
    "resnet50": ("resnet50", {}),
    "resnet50_output_stride_16": ("resnet50", {"output_stride": 16}),
    "regnety_160": ("regnety_160", {}),
}


def main():
    images = torch.from_numpy(fixed_images(*SIZE)).permute(0, 3, 1, 2)
    arrays = {}
    for name, (timm_name, arguments) in NETWORKS.items():
        model = timm.create_model(timm_name, **arguments)
        state = fixed_state_dict(
            {
                key: tuple(value.shape)
                for key, value in model.state_dict().items()
                if not key.endswith("num_batches_tracked")
            }
        )
        model.load_state_dict(
            {key: torch.from_numpy(value) for key, value in state.items()}, strict=False
        )
        arrays[f"{name}/keys"] = np.array(
            [f"{key} {' '.join(map(str, value.shape))}" for key, value in state.items()]
        )
        for mode in ("inference", "training"):  # in this order: training changes the statistics
            model.train(mode == "training")
            with torch.no_grad():
                logits, maps = outputs(model, images)
            arrays[f"{name}/{mode}/logits"] = logits.numpy()
            for stage, feature_map in enumerate(maps, 1):
                arrays[f"{name}/{mode}/stage{stage}"] = sampled(feature_map.permute(0, 2, 3, 1))
            print(name, mode, f"logits up to {logits.abs().max():.2f}")
    np.savez_compressed(OUTPUT, **arrays)
    print(f"Written to {OUTPUT}, {OUTPUT.stat().st_size / 1e6:.2f} MB")


def outputs(model, images):
    """Logits and the maps of the four stages, from one forward pass."""
    maps = []
    stages = [
        module for name, module in model.named_children() if re.fullmatch(r"(layer|s)[1-4]", name)
    ]
    hooks = [stage.register_forward_hook(lambda *call: maps.append(call[2])) for stage in stages]
    logits = model(images)
    for hook in hooks:
        hook.remove()
    return logits, maps


if __name__ == "__main__":
    main()
