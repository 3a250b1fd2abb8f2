"""From pixels to the first grid of tokens."""

from keras import layers

from pit_keras.models.initializers import linear_initializers
from pit_keras.models.serialization import registered


def patch_grid(image_size, patch_size, stride):
    """Height and width of the grid that a convolution without padding leaves; None stays None."""
    height, width = image_size
    if any(side is not None and side < patch_size for side in image_size):
        raise ValueError(
            f"An image of {height} x {width} pixels is smaller than one patch of {patch_size} x "
            f"{patch_size}; use a larger image or a smaller patch_size."
        )
    return tuple(None if side is None else (side - patch_size) // stride + 1 for side in image_size)


def is_dilated(output_stride, natural, reduction):
    """Whether a network has half its natural `output_stride` and dilates its last reduction."""
    if output_stride not in (None, natural, natural // 2):
        raise ValueError(
            f"output_stride must be {natural}, or {natural // 2} to dilate the last {reduction}; "
            f"got {output_stride!r}."
        )
    return output_stride == natural // 2


def embedding_grid(variant, image_size):
    """Grid of a position embedding that is resampled to the images' grid; None for their own.

    It is that of images of `variant.base_size`, by default 224 x 224 if the size is open.
    """
    size = variant.base_size
    if size is None:
        if None not in image_size:
            return None
        size = (224, 224)
    return patch_grid(size, variant.patch_size, variant.stride)


@registered
class PatchSizeCheck(layers.Layer):
    """Passes images of any size on, and refuses those smaller than one patch.

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


def patch_convolution(images, channels, patch_size, stride):
    """Patch embedding, (B, H, W, C) -> (B, h, w, channels). Patches overlap if stride < size."""
    if None in images.shape[1:3]:
        images = PatchSizeCheck(patch_size, name="patch_size_check")(images)
    initial = linear_initializers("torch_default", fan_in=patch_size**2 * images.shape[-1])
    initial["data_format"] = "channels_last"
    return layers.Conv2D(channels, patch_size, stride, **initial, name="patch_embedding")(images)
