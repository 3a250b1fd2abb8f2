"""Image sources, preprocessing, augmentation, mixing, COCO's form, and the tf.data pipelines.

Nothing here knows a model or a run, and chance is a function of seed, epoch and example.
"""

import importlib

_PUBLIC = ("cutmix", "digits", "image_folder", "mixup", "rand_augment", "random_erasing", "tfds")


def __getattr__(name):
    """Imports what is public where it is first used: TensorFlow takes seconds."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.datasets"), name)
