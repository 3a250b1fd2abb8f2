"""Mistakes in what `fit`, `evaluate` and `predict` are given, told before the first step.

Keras would train on them without a word, or end in an error of its backend.
"""

import sys
import warnings

import keras
import numpy as np

_ROWS = ("categorical_crossentropy", "soft_cross_entropy")
_NUMBERS = "sparse_categorical_crossentropy"
_LARGEST = 20.0  # normalised images are within -2.2 and 2.7, the noise of an erased part within 6


@keras.saving.register_keras_serializable(package="pit_keras")
class Classifier(keras.Model):
    """A functional model from images to logits that checks what it is given."""

    def fit(self, x=None, y=None, *args, **kwargs):
        check_labels(self, self.output_shape[-1], x, y)
        return super().fit(watched(x), y, *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        check_labels(self, self.output_shape[-1], x, y)
        return super().evaluate(watched(x), y, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        return super().predict(watched(x), *args, **kwargs)


def check_labels(model, classes, x, y):
    """Raises ValueError for labels of another form than the compiled loss takes, or other classes.

    Only arrays, tensors and `tf.data` tell their form.
    """
    loss = getattr(model, "loss", None)
    loss = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    specs = getattr(x, "element_spec", None)
    labels = specs[1] if isinstance(specs, tuple) and len(specs) > 1 else y
    if not hasattr(labels, "shape") or loss not in (*_ROWS, _NUMBERS):
        return
    shape = tuple(labels.shape)
    are_rows = len(shape) == 2 and shape[1] not in (1, None)
    if loss == _NUMBERS and are_rows:
        raise ValueError(
            f"The labels are rows {shape}, one-hot or mixed, but the loss takes class numbers; use "
            "keras.losses.CategoricalCrossentropy(from_logits=True)."
        )
    if loss in _ROWS and not are_rows:
        raise ValueError(
            f"The labels are class numbers {shape}, but the loss takes rows (B, classes); use "
            "keras.losses.SparseCategoricalCrossentropy(from_logits=True), or one-hot labels."
        )
    theirs = shape[1] if are_rows else len(getattr(x, "class_names", ())) or None
    if not are_rows and theirs is None and specs is None and len(labels):
        numbers = keras.ops.convert_to_numpy(labels)
        theirs = classes if numbers.min() >= 0 and numbers.max() < classes else numbers.max() + 1
    if theirs not in (classes, None):
        raise ValueError(
            f"The labels have {theirs} classes, {model.name} has {classes}; create the model with "
            f"classes={theirs}."
        )


def watched(x):
    """`x`, with a warning for images that are not normalised, as arrays and `tf.data` show them."""
    if isinstance(x, np.ndarray) or keras.ops.is_tensor(x):
        if len(x):
            _warn(keras.ops.max(x[:8]))
        return x
    tf = sys.modules.get("tensorflow")
    if tf is None or not isinstance(x, tf.data.Dataset):
        return x

    def look(place, element):
        first = tf.nest.flatten(element)[0]

        def tell():
            return tf.group(tf.numpy_function(_warn, [tf.reduce_max(first)], []))

        # Where the first batch is made: to draw one here as well could take long.
        with tf.control_dependencies([tf.cond(place == 0, tell, tf.no_op)]):
            return tf.nest.map_structure(tf.identity, element)

    return x.enumerate().map(look, num_parallel_calls=1)


def _warn(largest):
    if largest > _LARGEST:
        warnings.warn(
            f"The images reach {float(largest):g}, but the models take them normalised: "
            "pit_keras.preprocess_input(images).",
            stacklevel=4,
        )
