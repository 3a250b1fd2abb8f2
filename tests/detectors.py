"""Small detectors with weights of their own, for the classes of `coco_form`."""

import keras

from pit_keras.create import create_model

IMAGE_SIZE = (32, 48)  # short and long side
BACKBONES = {  # overrides that make a small one; the ViT of one block is traced soonest
    "detr_vit_s": {"patch_size": 8, "stride": 8, "head_dim": 4, "depth": 1},
    "detr_pit_s": {
        "patch_size": 4,
        "stride": 4,
        "head_dim": 8,
        "depths": (1, 1, 1),
        "heads": (1, 2, 4),
        "output_stride": 8,
    },
    "detr_resnet50": {
        "base_width": 4,
        "depths": (1, 1, 1, 1),
        "stem_stride": 2,
        "output_stride": 8,
    },
}
HEAD = {
    "classes": 3,
    "queries": 10,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "hidden_width": 16,
    "hidden_heads": 2,
    "feed_forward": 32,
}


def small_detector(input_shape=(None, None, 3), seed=23, name="detr_vit_s", **overrides):
    """A detector of two decoder layers; the same seed gives the same weights."""
    keras.utils.set_random_seed(seed)
    settings = {**BACKBONES[name], **HEAD, "base_size": (32, 32), **overrides}
    return create_model(name, input_shape=input_shape, **settings)
