"""A tiny detector, its configuration, its data and its steps, for tests of training."""

import detectors
import keras
import numpy as np
import tensorflow as tf
from coco_form import write_coco_form

from pit_keras.config.recipes import recipe
from pit_keras.training.assembly import model_of
from pit_keras.training.detection_task import DetectionLoss
from pit_keras.training.step import compiled_step

SIZE = (32, 48)  # height and width of all images


class Classes:
    class_names, category_ids = ("red", "green", "blue"), (2, 5, 11)

    @staticmethod
    def most_objects():
        return 11


def write_data(root):
    """24 images to train on and 6 to validate, of one size, so that steps are traced once."""
    return write_coco_form(root, {"train": 24, "val": 6}, sizes=(SIZE,))


BACKBONES = {
    **detectors.BACKBONES,
    "detr_resnet50": {
        "output_stride": 16,
        "depths": (1, 1, 1, 1),
        "base_width": 4,
        "frozen_stages": 0,
    },
}


def make_config(data=None, name="detr_vit_s", **values):
    """The quickest run there is: three steps an epoch, two epochs, few weights."""
    config = recipe("detr", name)
    config.data.dataset, config.data.image_size = f"coco:{data}", SIZE
    config.detection.multi_scale = config.detection.random_crop = False
    model = config.model
    model.weights = None
    for field, value in BACKBONES[name].items():
        setattr(model, field, value)
    model.queries, model.encoder_layers, model.decoder_layers = 10, 1, 1
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


def small(name="detr_vit_s", **values):
    """A configuration and its detector, without dropout."""
    config = make_config(name=name, **{"model__dropout": 0.0, **values})
    keras.utils.set_random_seed(0)
    return config, model_of(config, Classes)


def gradients_of_steps(config, model, strategy, batches):
    """(metrics and gradients of a step on each batch from the same weights, traces).

    Make the model under the strategy.
    """
    config.optimizer.clip_norm = None
    with strategy.scope():
        optimizer = keras.optimizers.SGD(1.0)
        optimizer.build(model.trainable_variables)
        loss = DetectionLoss(config, model)
    step = compiled_step(config, model, loss, optimizer, strategy, jit=False)
    before, found = model.get_weights(), []
    for batch in batches:
        metrics = step(batch, tf.constant(0, tf.int64), tf.zeros(2))
        metrics = {name: float(v) for name, v in metrics.items() if name != "requests"}
        gradients = [a - b for a, b in zip(before, model.get_weights(), strict=True)]
        found.append((metrics, gradients))
        model.set_weights(before)
    return found, step.experimental_get_tracing_count()
