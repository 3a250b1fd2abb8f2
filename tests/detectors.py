"""A small detector with weights of its own, for the classes of `coco_form`."""

import keras

from pit_keras.create import create_model

IMAGE_SIZE = (32, 48)  # short and long side


def small_detector(input_shape=(None, None, 3), seed=23, **overrides):
    """A detector of two decoder layers; the same seed gives the same weights."""
    keras.utils.set_random_seed(seed)
    settings = {
        "classes": 3,
        "patch_size": 4,
        "stride": 2,
        "head_dim": 8,
        "depths": (1, 1, 1),
        "heads": (1, 2, 4),
        "output_stride": 4,
        "base_size": (32, 32),
        "queries": 10,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "hidden_width": 16,
        "hidden_heads": 2,
        "feed_forward": 32,
    }
    return create_model("detr_pit_s", input_shape=input_shape, **{**settings, **overrides})
