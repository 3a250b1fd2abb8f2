"""PyTorch's names of a ResNet's tensors, torchvision's and timm's, and of a RegNetY's, timm's."""

import dataclasses
import functools
import re

import numpy as np

from pit_keras.weights.origin import Origin

# (out, in / groups, kh, kw) -> (kh, kw, in / groups, out); the groups are in the same order.
_convolution_kernel = functools.partial(np.transpose, axes=(2, 3, 1, 0))


@dataclasses.dataclass(frozen=True)
class _Layout:
    """PyTorch's names of a family's layers."""

    block: str  # a block's prefix
    inside: dict[str, str]  # layers of a block, by what our names have after `stage1_block1_`
    outside: dict[str, str]  # all others, by our names

    def prefix(self, name):
        """PyTorch's name of one of our layers."""
        if name in self.outside:
            return self.outside[name]
        stage, block, part = re.fullmatch(r"stage(\d+)_block(\d+)_(\w+)", name).groups()
        prefix = self.block.format(stage=stage, block=block, block_from_0=int(block) - 1)
        return f"{prefix}.{self.inside[part]}"


_RESNET = _Layout(
    block="layer{stage}.{block_from_0}",
    inside={
        **{f"conv{index}": f"conv{index}" for index in (1, 2, 3)},
        **{f"norm{index}": f"bn{index}" for index in (1, 2, 3)},
        "shortcut_conv": "downsample.0",
        "shortcut_norm": "downsample.1",
    },
    outside={"stem_conv": "conv1", "stem_norm": "bn1", "head": "fc"},
)
_REGNET = _Layout(
    block="s{stage}.b{block}",
    inside={
        **{f"conv{index}": f"conv{index}.conv" for index in (1, 2, 3)},
        **{f"norm{index}": f"conv{index}.bn" for index in (1, 2, 3)},
        "squeeze": "se.fc1",
        "excite": "se.fc2",
        "shortcut_conv": "downsample.conv",
        "shortcut_norm": "downsample.bn",
    },
    outside={"stem_conv": "stem.conv", "stem_norm": "stem.bn", "head": "head.fc"},
)


def origins(name, layers):
    """Every variable of a ResNet's or RegNetY's layers with its key; they tell which of them it is.

    Raises:
        ValueError: If PyTorch has no such network.
    """
    names = {layer.name for layer in layers}
    if "stage1_block1_squeeze" in names:
        layout = _REGNET
    elif "stem_pool" in names:
        layout = _RESNET
    else:
        raise ValueError(
            f"There are no PyTorch weights for {name}: only PiT, ViT, ResNet-50 and RegNetY "
            "have names there that are known."
        )
    return [
        origin
        for layer in layers
        if layer.weights
        for origin in _layer(layer, layout.prefix(layer.name))
    ]


def _layer(layer, prefix):
    if hasattr(layer, "moving_mean"):
        values = {
            "weight": layer.gamma,
            "bias": layer.beta,
            "running_mean": layer.moving_mean,
            "running_var": layer.moving_variance,
        }
        return [Origin(value, (f"{prefix}.{key}",), np.asarray) for key, value in values.items()]
    convert = np.transpose if layer.name == "head" else _convolution_kernel
    kernel = Origin(layer.kernel, (f"{prefix}.weight",), convert)
    bias = [Origin(layer.bias, (f"{prefix}.bias",), np.asarray)] if layer.use_bias else []
    return [kernel, *bias]
