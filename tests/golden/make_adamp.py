"""Regenerates `adamp.npz` from the authors' PyTorch optimizer.

    pip install torch adamp==0.3.0
    python tests/golden/make_adamp.py

The file holds, in PyTorch's layouts and float32, for every tensor NAME below:
`NAME/start` (...), `NAME/gradients` (steps, ...), `NAME/weights` (steps, ...) after each step, and
`NAME/views` (steps,): 0 where nothing was projected, 1 the channel view, 2 the layer view. Besides,
`learning_rates` (steps,). Weight decay is 0.05 for kernels and 0 for all else.
"""

import math
import pathlib

import numpy as np
import torch
from adamp import AdamP

SHAPES = {
    "conv": (8, 4, 3, 3),  # output channels, input channels, height, width
    "depthwise": (12, 1, 3, 3),  # 6 channels, multiplier 2
    "dense": (10, 24),
    "bias": (10,),
    "position_embedding": (1, 6, 5, 5),  # one, channels, height, width
    "class_tokens": (1, 2, 24),
}
KERNELS = ("conv", "depthwise", "dense")
WEIGHT_DECAY = 0.05
LEARNING_RATES = np.linspace(1e-3, 5e-2, 12, dtype=np.float32)
NONE, CHANNEL, LAYER = range(3)


def make_gradient(generator, weight, view):
    """A random gradient on which AdamP takes the given decision."""
    rows = weight.reshape(len(weight), -1)
    unit = rows / rows.norm(dim=1, keepdim=True)
    gradient = torch.randn(rows.shape, generator=generator)
    gradient -= (gradient * unit).sum(1, keepdim=True) * unit  # orthogonal, row by row
    if view == NONE:  # one single row is not: the largest cosine decides, not the mean
        gradient[0] += 0.16 * gradient[0].norm() * unit[0]
    elif view == LAYER:  # orthogonal as a whole, but not row by row
        signs = torch.ones(len(rows), 1)
        signs[::2] = -1
        gradient += signs * unit * math.sqrt(rows.shape[1])
        gradient -= (gradient * rows).sum() / (rows * rows).sum() * rows
    return gradient.reshape(weight.shape)


def decision(optimizer, weight, gradient):
    """The view that the reference projects in; far enough from its threshold for any rounding."""
    group = optimizer.param_groups[0]
    for view, function in ((CHANNEL, optimizer._channel_view), (LAYER, optimizer._layer_view)):
        cosine = optimizer._cosine_similarity(gradient, weight, group["eps"], function).max()
        ratio = float(cosine) * math.sqrt(function(weight).shape[1]) / group["delta"]
        assert not 0.95 < ratio < 1.05, f"{tuple(weight.shape)}: too close to the threshold"
        if ratio < 1:
            return view
    return NONE


def main():
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.nn.Parameter(0.1 * torch.randn(shape, generator=generator))
        for name, shape in SHAPES.items()
    }
    optimizer = AdamP(
        [
            {"params": [weights[name] for name in KERNELS], "weight_decay": WEIGHT_DECAY},
            {"params": [w for name, w in weights.items() if name not in KERNELS]},
        ],
        betas=(0.9, 0.999),
        eps=1e-8,
        delta=0.1,
        wd_ratio=0.1,
    )
    golden = {f"{name}/start": w.detach().numpy().copy() for name, w in weights.items()}
    record = {f"{name}/{k}": [] for name in SHAPES for k in ("gradients", "weights", "views")}
    for step, learning_rate in enumerate(LEARNING_RATES):
        for group in optimizer.param_groups:
            group["lr"] = float(learning_rate)
        for shift, (name, weight) in enumerate(weights.items()):
            weight.grad = make_gradient(generator, weight.data, (step + shift) % 3)
            view = decision(optimizer, weight.data, weight.grad) if weight.ndim > 1 else NONE
            record[f"{name}/gradients"].append(weight.grad.numpy().copy())
            record[f"{name}/views"].append(view)
        optimizer.step()
        for name, weight in weights.items():
            record[f"{name}/weights"].append(weight.detach().numpy().copy())

    for name, shape in SHAPES.items():
        expected = {NONE} if len(shape) < 2 else {NONE, CHANNEL}
        expected |= {LAYER} if name in KERNELS else set()  # with one row, the views are the same
        assert set(record[f"{name}/views"]) == expected, name
    golden |= {key: np.stack(values) for key, values in record.items()}
    golden["learning_rates"] = LEARNING_RATES
    np.savez_compressed(pathlib.Path(__file__).with_name("adamp.npz"), **golden)


if __name__ == "__main__":
    main()
