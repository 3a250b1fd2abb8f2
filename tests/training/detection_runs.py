"""A tiny detector, its configuration and its data, for tests of training."""

import numpy as np
import tensorflow as tf
from coco_form import write_coco_form

from pit_keras.config.recipes import recipe

SIZE = (32, 48)  # height and width of all images


def write_data(root):
    """24 images to train on and 6 to validate, of one size, so that steps are traced once."""
    return write_coco_form(root, {"train": 24, "val": 6}, sizes=(SIZE,))


def make_config(data=None, **values):
    """The quickest run there is: three steps an epoch, two epochs, few weights."""
    config = recipe("detr", "detr_pit_s")
    config.data.dataset, config.data.image_size = f"coco:{data}", SIZE
    config.detection.multi_scale = config.detection.random_crop = False
    model = config.model
    model.weights = None
    model.patch_size, model.stride, model.output_stride, model.head_dim = 4, 2, 4, 8
    model.depths, model.heads = (1, 1, 1), (1, 2, 4)
    model.queries, model.encoder_layers, model.decoder_layers = 10, 1, 2
    model.hidden_width, model.hidden_heads, model.feed_forward = 16, 2, 32
    config.optimizer.learning_rate = 1e-3
    config.training.batch_size, config.training.epochs = 8, 2
    for path, value in values.items():
        section, name = path.split("__")
        setattr(getattr(config, section), name, value)
    return config


def batch(images=4, boxes=5, seed=0, size=SIZE):
    """A batch whose images have different numbers of boxes, and padding."""
    rng = np.random.default_rng(seed)
    labels = np.where(np.arange(boxes) < np.arange(images)[:, None] + 1, 1, -1)
    labels = np.where(labels > 0, rng.integers(0, 3, labels.shape), -1)
    padding = np.zeros((images, *size), bool)
    padding[0, :, -8:] = True
    return {
        "image": tf.constant(rng.normal(size=(images, *size, 3)), "float32"),
        "padding_mask": tf.constant(padding),
        "boxes": tf.constant(rng.uniform(0.2, 0.5, size=(images, boxes, 4)), "float32"),
        "labels": tf.constant(labels, "int32"),
    }
