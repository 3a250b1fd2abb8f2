"""SavedModel: for TensorFlow Serving, and for any program that has TensorFlow."""

import pathlib
import tempfile

import tensorflow as tf

from pit_keras.data.preprocessing import preprocess_evaluation
from pit_keras.export.class_names import CLASSES_FILE, class_names_text

SIGNATURE = "serving_default"


def export_saved_model(trained, path):
    """Writes a SavedModel that takes images as they come from a file.

    Its signature `serving_default` maps `images`, uint8 (B, H, W, 3) of any size, to `logits` and
    `probabilities`, float32 (B, classes). Resizing, centre crop and normalisation are inside. The
    class names are an asset, `assets/classes.txt`, one a line in the order of the logits; in Python
    `tf.saved_model.load(path).classes.asset_path`. Nothing but TensorFlow is needed to use it.

    Args:
        trained: A `TrainedModel` on Keras' TensorFlow backend.
        path: The folder to write, a new one.

    Raises:
        ValueError: If a class name holds a line break.
    """

    def serve(images):
        images = preprocess_evaluation(images, trained.data)
        logits = trained.model(images, training=False)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
    with tempfile.TemporaryDirectory() as folder:
        classes = pathlib.Path(folder, CLASSES_FILE)
        classes.write_bytes(class_names_text(trained.class_names).encode())
        save_function(serve, images, trained.model, path, classes=tf.saved_model.Asset(classes))


def save_function(function, images, model, path, **trackables):
    """Writes a SavedModel of one function of images.

    Args:
        function: Takes one tensor, returns a dictionary of tensors: the signature's outputs.
        images: The `tf.TensorSpec` of that tensor; its name is the signature's argument.
        model: The Keras model whose weights the function uses.
        path: The folder to write.
        **trackables: Further attributes of the saved object, such as a `tf.saved_model.Asset`.
    """
    # `keras.export.ExportArchive` does the same, but has no place for an asset.
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    for name, trackable in trackables.items():
        setattr(module, name, trackable)
    module.serve = tf.function(function, input_signature=[images], autograph=False)
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.serve})
