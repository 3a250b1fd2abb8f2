"""From pixels to the first grid of tokens."""

import keras
from keras import layers

from pit_keras.models.initializers import linear_initializers

BASE_SIZE = (224, 224)


def patch_grid(image_size, patch_size, stride):
    """Height and width of the grid that a convolution without padding leaves; None stays None.

    Raises:
        ValueError: If the image is smaller than one patch.
    """
    height, width = image_size
    if any(side is not None and side < patch_size for side in image_size):
        raise ValueError(
            f"An image of {height} x {width} pixels is smaller than one patch of {patch_size} x "
            f"{patch_size}; use a larger image or a smaller patch_size."
        )
    return tuple(None if side is None else (side - patch_size) // stride + 1 for side in image_size)


def embedding_grid(variant, image_size):
    """Grid of a position embedding that is resampled to the images' grid; None for their own.

    Args:
        variant: A `PiT` or a `ViT`; its `base_size` is the image size that the embedding is for.
        image_size: Height and width of the images; None for one that is known only at run time.

    Raises:
        ValueError: If `base_size` is not two positive integers, or smaller than a patch.
    """
    size = variant.base_size
    if size is None:
        if None not in image_size:
            return None
        size = BASE_SIZE
    if (
        not isinstance(size, (tuple, list))
        or len(size) != 2
        or not all(type(side) is int and side > 0 for side in size)
    ):
        raise ValueError(f"base_size must be (height, width), two positive integers; got {size!r}.")
    return patch_grid(size, variant.patch_size, variant.stride)


@keras.saving.register_keras_serializable(package="pit_keras")
class PatchSizeCheck(layers.Layer):
    """Passes images of any size on, but refuses those smaller than one patch with a sentence.

    In a TensorFlow graph of unknown sizes it sees nothing; TensorFlow then fails, less clearly.
    """

    def __init__(self, patch_size, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = patch_size

    def call(self, images):
        patch_grid(images.shape[1:3], self.patch_size, stride=1)
        return images

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "patch_size": self.patch_size}


def patch_convolution(images, channels, patch_size, stride):
    """Patch embedding, (B, H, W, C) -> (B, h, w, channels). Patches overlap if stride < size."""
    if None in images.shape[1:3]:
        images = PatchSizeCheck(patch_size, name="patch_size_check")(images)
    fan_in = patch_size**2 * images.shape[-1]
    return layers.Conv2D(
        channels,
        patch_size,
        strides=stride,
        **linear_initializers("torch_default", fan_in),
        name="patch_embedding",
    )(images)
