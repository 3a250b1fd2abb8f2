"""The networks of table 3 that `keras.applications` holds, under names of their own.

They take the same images as all models here; a layer inside encodes these as each network was
trained with. The whole family is the table `VARIANTS`.
"""

import contextlib
import dataclasses

import keras
import numpy as np
from keras import layers, ops

from pit_keras.imagenet import IMAGENET_MEAN, IMAGENET_STD
from pit_keras.models.convolution_layers import halved_grids
from pit_keras.models.serialization import registered

# Pixels v in 0..1 become scale * v - offset, RGB; "caffe" is then flipped to BGR.
_ENCODINGS = {
    "bytes": (255.0, (0.0, 0.0, 0.0)),
    "signed": (2.0, (1.0, 1.0, 1.0)),
    "caffe": (255.0, (123.68, 116.779, 103.939)),
}
_FIXED = {"override": False}


@registered
class PixelEncoding(layers.Layer):
    """Images normalised with ImageNet's mean and deviation, in another encoding; (B, H, W, 3).

    It is "bytes" for 0..255, "signed" for -1..1, "caffe" for BGR in 0..255 less the mean.
    """

    def __init__(self, encoding, **kwargs):
        super().__init__(**kwargs)
        self.encoding = encoding

    def call(self, inputs):
        scale, offsets = _ENCODINGS[self.encoding]
        x = inputs * ops.convert_to_tensor(scale * np.array(IMAGENET_STD), inputs.dtype)
        shifts = scale * np.array(IMAGENET_MEAN) - offsets
        x = x + ops.convert_to_tensor(shifts, inputs.dtype)
        return ops.flip(x, axis=-1) if self.encoding == "caffe" else x


@dataclasses.dataclass(frozen=True)
class Application:
    """One network of `keras.applications`. None of its fields can be overridden."""

    constructor: str = dataclasses.field(metadata=_FIXED)
    encoding: str = dataclasses.field(metadata=_FIXED)  # see `PixelEncoding`
    image_size: int = dataclasses.field(default=224, metadata=_FIXED)  # that it was published with

    def grids(self, image_size):
        """Height and width of the maps at strides 4, 8, 16 and 32: 56, 28, 14 and 7 at 224."""
        if any(side is not None and side < 32 for side in image_size):
            raise ValueError(
                f"An image of {image_size[0]} x {image_size[1]} pixels is too small: "
                "keras.applications takes 32 x 32 or more."
            )
        return halved_grids(image_size, (2, 1, 1, 1))


VARIANTS = {
    "resnet101": Application("ResNet101", "caffe"),
    "resnet152": Application("ResNet152", "caffe"),
    "mobilenet_v2": Application("MobileNetV2", "signed"),
    "mobilenet_v3_small": Application("MobileNetV3Small", "bytes"),
    "mobilenet_v3_large": Application("MobileNetV3Large", "bytes"),
    "efficientnet_b0": Application("EfficientNetB0", "bytes"),
    "efficientnet_b1": Application("EfficientNetB1", "bytes", 240),
    "efficientnet_b2": Application("EfficientNetB2", "bytes", 260),
    "efficientnet_b3": Application("EfficientNetB3", "bytes", 300),
    "efficientnet_b4": Application("EfficientNetB4", "bytes", 380),
    "efficientnet_b5": Application("EfficientNetB5", "bytes", 456),
}


@contextlib.contextmanager
def _channels_last():
    """Networks that ask Keras for the format of images get ours, whatever the user's setting."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


def build(variant, settings, weights=None):
    """Builds a network of `keras.applications`, flat: images (B, H, W, 3) -> logits (B, classes).

    Without its top it gives the last map's mean (B, C). MobileNetV3 and EfficientNet keep Keras'
    dropout and stochastic depth. Keras downloads and checks `weights="imagenet"`.
    """
    variant.grids(settings.input_shape[:2])  # refuses an image that is too small
    for option in ("drop_rate", "attention_drop_rate", "drop_path_rate"):
        settings.require(option, 0, f"keras.applications takes no {option}")
    if settings.input_shape[2] != 3:
        raise ValueError(
            f"{settings.name} takes RGB images: input_shape must end in 3; got "
            f"{settings.input_shape}."
        )
    images = keras.Input(settings.input_shape, name="images")
    encoded = PixelEncoding(variant.encoding, dtype="float32", name="pixel_encoding")(images)
    with _channels_last():
        network = getattr(keras.applications, variant.constructor)(
            input_tensor=encoded,
            input_shape=settings.input_shape,
            include_top=settings.include_top,
            pooling=None if settings.include_top else "avg",
            classes=settings.classes,
            classifier_activation=None,
            weights=weights,
        )
    outputs = layers.Activation(settings.classifier_activation, dtype="float32", name="outputs")
    return keras.Model(images, outputs(network.output), name=settings.name)
