"""Random weights and images that are the same wherever they are made, so that they need no file."""

import zlib

import numpy as np

IMAGES = 2
STAGE_SAMPLES = 500  # values kept of each stage's feature maps

# pit_keras names and timm's.
TIMM_NAMES = {
    **{
        f"pit_{size}{suffix}": f"pit_{size}{suffix}_224"
        for size in ("ti", "xs", "s", "b")
        for suffix in ("", "_distilled")
    },
    **{
        f"vit_{short}{suffix}": f"deit_{long}{suffix}_patch16_224"
        for short, long in (("ti", "tiny"), ("s", "small"), ("b", "base"))
        for suffix in ("", "_distilled")
    },
}


def fixed_state_dict(shapes):
    """A state dict of random weights that depend only on each tensor's name and shape.

    Their scale keeps activations near 1 and attention far from uniform, so that an error anywhere
    reaches the logits.
    """
    return {key: _tensor(key, shape) for key, shape in shapes.items()}


def _tensor(key, shape):
    values = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(
        shape, dtype=np.float32
    )
    if key.endswith("running_var"):
        return 0.5 + np.abs(values)
    if len(shape) == 1 and key.endswith("weight"):  # a normalisation's scale
        return 1 + 0.2 * values
    if len(shape) == 1:
        return 0.2 * values
    if key in ("pos_embed", "cls_token", "dist_token"):
        return 0.5 * values
    return values * 1.5 / np.float32(np.sqrt(np.prod(shape[1:])))


def fixed_images(height=224, width=224, channels=3):
    """Normalised images (2, H, W, C)."""
    generator = np.random.Generator(np.random.PCG64(7))
    return generator.standard_normal((IMAGES, height, width, channels), dtype=np.float32)


def sampled(feature_map):
    """The same few values of every feature map (B, h, w, C)."""
    values = np.asarray(feature_map).reshape(-1)
    chosen = np.random.Generator(np.random.PCG64(11)).choice(
        values.size, min(STAGE_SAMPLES, values.size), replace=False
    )
    return values[np.sort(chosen)]


def fixed_feature_maps(channels):
    """Feature maps (2, 5, 7, channels)."""
    generator = np.random.Generator(np.random.PCG64(13))
    return generator.standard_normal((IMAGES, 5, 7, channels), dtype=np.float32)


def fixed_padding():
    """Which of their positions are padding, (2, 5, 7): none; the last two columns, the last row."""
    padding = np.zeros((IMAGES, 5, 7), bool)
    padding[1, :, 5:] = padding[1, 4:] = True
    return padding
