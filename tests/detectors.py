"""A small detector with weights of its own, for the classes of `coco_form`."""

import keras

from pit_keras.create import create_model

IMAGE_SIZE = (32, 48)  # short and long side
BACKBONES = {  # small ones; the ViT of one block has the fewest operations to trace
    "detr_vit_s": {"patch_size": 8, "stride": 8, "head_dim": 8, "depth": 1, "heads": 2},
    "detr_pit_s": {
        "patch_size": 4,
        "stride": 4,
        "head_dim": 8,
        "depths": (1, 1, 1),
        "heads": (1, 2, 4),
        "output_stride": 8,
    },
}


def small_detector(input_shape=(None, None, 3), seed=23, name="detr_vit_s", **overrides):
    """A detector of two decoder layers; the same seed gives the same weights."""
    keras.utils.set_random_seed(seed)
    settings = {
        **BACKBONES[name],
        "classes": 3,
        "base_size": (32, 32),
        "queries": 10,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "hidden_width": 16,
        "hidden_heads": 2,
        "feed_forward": 32,
    }
    return create_model(name, input_shape=input_shape, **{**settings, **overrides})
