"""Small networks, a batch and single steps, for tests of the step on one device and on several."""

import keras
import numpy as np
import tensorflow as tf

from pit_keras.create import create_model
from pit_keras.training.classification_task import ClassificationLoss
from pit_keras.training.step import compiled_step

SIDE, CLASSES, BATCH = 20, 5, 6
DROPPING = {"drop_path_rate": 0.5, "drop_rate": 0.2}


def pit(name="pit_ti_distilled", **rates):
    keras.utils.set_random_seed(0)
    sizes = {"patch_size": 4, "stride": 4, "head_dim": 4, "depths": (1, 1, 1), "heads": (1, 2, 4)}
    return create_model(name, classes=CLASSES, input_shape=(SIDE, SIDE, 3), **sizes, **rates)


def vit(**rates):
    """A ViT of two blocks; the second may be dropped."""
    keras.utils.set_random_seed(0)
    sizes = {"patch_size": 4, "stride": 4, "head_dim": 4, "depth": 2, "heads": 2}
    return create_model("vit_ti", classes=CLASSES, input_shape=(SIDE, SIDE, 3), **sizes, **rates)


def convolutional(classes=CLASSES):
    keras.utils.set_random_seed(0)
    sizes = {"depths": (1, 1, 1, 1), "base_width": 4}
    return create_model("resnet50", classes=classes, input_shape=(SIDE, SIDE, 3), **sizes)


def float64_network():
    """A student with two heads, all of it in float64, which those of `create_model` are not."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    kinds = {"dtype": "float64"}
    images = keras.Input((SIDE, SIDE, 3), **kinds)
    x = layers.Conv2D(4, 4, strides=4, activation="gelu", **kinds, name="patches")(images)
    x = layers.Flatten(**kinds)(x)
    x = layers.Dense(8, activation="tanh", **kinds, name="hidden")(x)
    heads = [layers.Dense(CLASSES, **kinds, name=name)(x) for name in ("head", "head_dist")]
    return keras.Model(images, layers.Average(**kinds)(heads))


def normalised_network():
    """With BatchNormalization, in float64."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    kinds = {"dtype": "float64"}
    images = keras.Input((SIDE, SIDE, 3), **kinds)
    x = layers.Conv2D(4, 4, strides=4, **kinds)(images)
    x = layers.BatchNormalization(**kinds)(x)
    x = layers.GlobalAveragePooling2D(**kinds)(x)
    return keras.Model(images, layers.Dense(CLASSES, **kinds)(x))


def dropping_network():
    """The smallest that drops anything."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    images = keras.Input((SIDE, SIDE, 3))
    x = layers.Dropout(0.5)(layers.Flatten()(images))
    return keras.Model(images, layers.Dense(CLASSES)(x))


def batch(dtype="float32", images=BATCH, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=(images, SIDE, SIDE, 3))
    labels = rng.dirichlet(np.ones(CLASSES), size=images)
    return {"image": tf.constant(pixels, dtype), "label": tf.constant(labels, dtype)}


def teacher(images):
    """Logits that depend on the images and have a clear favourite."""
    return 10 * tf.reshape(images[:, :CLASSES, 0, 0], (-1, CLASSES))


def descent(model, rate=1.0):
    """Plain gradient descent: its update is the gradient."""
    optimizer = keras.optimizers.SGD(rate)
    optimizer.build(model.trainable_variables)
    return optimizer


def loss_scaling(model, scale):
    """Plain gradient descent with the loss scaling of float16."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=scale)
    optimizer.build(model.trainable_variables)
    return optimizer


def inputs(number=0, values=None):
    """What a step takes: a batch, the step's number and no requests."""
    return values or batch(), tf.constant(number, tf.int64), tf.zeros(2)


def step_of(config, model, optimizer, strategy=None, teacher=None, **options):
    """The step of a classifier."""
    loss = ClassificationLoss(config, model, teacher)
    strategy = strategy or tf.distribute.OneDeviceStrategy("CPU:0")
    return compiled_step(config, model, loss, optimizer, strategy, **options)


def run(config, model, optimizer=None, number=0, jit=False, teacher=None):
    """Metrics of one step, and how far it moved each trainable variable."""
    step = step_of(config, model, optimizer or descent(model), jit=jit, teacher=teacher)
    before = [variable.numpy() for variable in model.trainable_variables]
    metrics = step(*inputs(number, batch(model.inputs[0].dtype)))
    metrics = {name: float(v) for name, v in metrics.items() if name != "requests"}
    after = model.trainable_variables
    return metrics, [old - new.numpy() for old, new in zip(before, after, strict=True)]


def path_of(model):
    """Terms of the sums on the longest path through a network and back, all its layers' at most."""
    fans = [np.prod(w.shape[:-1]) + w.shape[-1] for w in model.weights if len(w.shape) > 1]
    return int(sum(fans))
