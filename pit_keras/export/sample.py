"""The images on which exported models are compared with the Keras model, and calibrated."""

import dataclasses

import numpy as np
import tensorflow as tf

from pit_keras.data.preprocessing import resize_and_crop

MOST_PHOTOGRAPHS = 32


@dataclasses.dataclass(frozen=True)
class Sample:
    """Images in two forms: as a device hands them to the model, and as they came.

    Attributes:
        crops: uint8 (N, H, W, 3) of the model's own size, cut out as in evaluation.
        photographs: The first `MOST_PHOTOGRAPHS` of the images as they came, uint8 (h, w, 3) of any
            sizes. (All of them, of a good camera, would not fit into memory.)
        origin: What they are, for the report.
    """

    crops: np.ndarray
    photographs: list[np.ndarray]
    origin: str

    def __len__(self):
        return len(self.crops)


def take_sample(images, data, origin):
    """A `Sample` of images.

    Args:
        images: Any number of uint8 images (h, w, 3), each of any size; read once.
        data: The `DataConfig` with the model's image size and evaluation crop.
        origin: What they are, for the report.

    Raises:
        ValueError: If there are none, or one is not such an image.
    """
    crops, photographs = [], []
    for image in images:
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
            raise ValueError(
                f"Images must be uint8 (H, W, 3); got {image.dtype} of shape {image.shape}."
            )
        crop = resize_and_crop(image, data.image_size, data.eval_crop)
        crops.append(tf.cast(crop, tf.uint8).numpy())  # whole levels: nothing is lost
        if len(photographs) < MOST_PHOTOGRAPHS:
            photographs.append(image)
    if not crops:
        raise ValueError("There are no images to compare the exported model with.")
    return Sample(np.stack(crops), photographs, origin)


def validation_images(source, count):
    """At most `count` images of a source's validation split, from all over it."""
    every = max(1, source.sizes["val"] // count)
    return _loaded(source, source.scan("val").shard(every, 0), count)


def training_images(source, count):
    """At most `count` images of a source's training split, drawn at random but always the same."""
    once = source.train_stream(seed=0).take(source.sizes["train"])
    return _loaded(source, once, count)


def _loaded(source, examples, count):
    """The pixels, uint8 (H, W, 3), without images that cannot be read."""
    images = examples.map(lambda example: source.load(example["image"])).ignore_errors()
    return (image.numpy() for image in images.take(count))
