"""From pixels to the first grid of tokens."""

from keras import layers

from pit_keras.models.initializers import linear_initializers


def patch_grid(image_size, patch_size, stride):
    """Height and width of the grid that a convolution without padding leaves.

    Raises:
        ValueError: If the image is smaller than one patch.
    """
    height, width = image_size
    if min(height, width) < patch_size:
        raise ValueError(
            f"An image of {height} x {width} pixels is smaller than one patch of {patch_size} x "
            f"{patch_size}; use a larger image or a smaller patch_size."
        )
    return (height - patch_size) // stride + 1, (width - patch_size) // stride + 1


def patch_convolution(images, channels, patch_size, stride):
    """Patch embedding, (B, H, W, C) -> (B, h, w, channels). Patches overlap if stride < size."""
    fan_in = patch_size**2 * images.shape[-1]
    return layers.Conv2D(
        channels,
        patch_size,
        strides=stride,
        **linear_initializers("torch_default", fan_in),
        name="patch_embedding",
    )(images)
