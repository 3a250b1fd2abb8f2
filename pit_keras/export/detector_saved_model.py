"""A detector as a SavedModel: for TensorFlow Serving, and for any program that has TensorFlow."""

import tensorflow as tf

from pit_keras.data.detection_preprocessing import preprocess_detection
from pit_keras.data.preprocessing import decode
from pit_keras.export.preprocessing_text import detection_preprocessing_text
from pit_keras.export.saved_model import SIGNATURE, write_saved_model
from pit_keras.export.warm_up import write_warm_up
from pit_keras.models.detr_outputs import detected
from pit_keras.runs.found_objects import THRESHOLD
from pit_keras.runs.versioned_folder import version_folder


def export_detector_saved_model(trained, path):
    """Writes a SavedModel that takes images as they come from a file and gives boxes in them.

    Resizing, padding and normalisation are inside. Signatures:

    - `serving_default`: `images`, uint8 (B, H, W, 3) of any size, to what was found, the highest
      score first, with Q queries: `boxes`, float32 (B, Q, 4), left, top, right, bottom in pixels of
      the image that was given, within it; `scores`, float32 (B, Q); `classes`, strings (B, Q), and
      `labels`, int32 (B, Q), their numbers; `queries`, int32 (B, Q), which query it is; and
      `count`, int32 (B,), how many have a score of `THRESHOLD` or more: these are the first ones;
    - `serve_bytes`: the same for `image_bytes`, strings (B,) that each hold a JPEG or PNG file, of
      different sizes too.

    All Q are given, since the answers for a batch are of one shape, and since a client may prefer
    another threshold. Assets and the attribute `serve` are as those of `export_saved_model`.

    Args:
        trained: A `TrainedDetector` on Keras' TensorFlow backend, computing in float32.
        path: The folder to write, a new one.

    Raises:
        ValueError: If a class name holds a line break.
    """
    serve, signatures = _functions(trained)
    write_saved_model(
        path,
        signatures,
        weights=trained.model.weights,
        class_names=trained.class_names,
        preprocessing=detection_preprocessing_text(trained.data, trained.fixed_size),
        serve=serve,
    )
    write_warm_up(version_folder(path), trained.model.name, trained.data.image_size)


def _functions(trained):
    """The function `serve`, and the signatures by name."""
    names = tf.constant(trained.class_names)
    images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")

    @tf.function(autograph=False, input_signature=[images])
    def serve(images):
        shape = tf.shape(images)
        sizes = tf.tile(shape[tf.newaxis, 1:3], [shape[0], 1])
        inputs = preprocess_detection(images, trained.data, trained.fixed_size)
        return _in_order(detected(trained.outputs(inputs), sizes), sizes, names)

    def serve_one(contents):
        answers = serve(decode(contents)[tf.newaxis])
        return {name: value[0] for name, value in answers.items()}

    outputs = serve.get_concrete_function().structured_outputs
    of_one = {name: tf.TensorSpec(spec.shape[1:], spec.dtype) for name, spec in outputs.items()}

    @tf.function(autograph=False)
    def serve_bytes(image_bytes):
        # One after the other: each has a size of its own, and so has what the model sees of it.
        return tf.map_fn(serve_one, image_bytes, fn_output_signature=of_one, parallel_iterations=1)

    image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")
    return serve, {
        SIGNATURE: serve.get_concrete_function(),
        "serve_bytes": serve_bytes.get_concrete_function(image_bytes),
    }


def _in_order(answers, sizes, names):
    """What `detected` gives, within the images, the highest score first, and named."""
    limits = tf.cast(tf.tile(sizes[:, ::-1], [1, 2]), tf.float32)[:, tf.newaxis]  # (B, 1, 4)
    boxes = tf.clip_by_value(answers["boxes"], 0.0, limits)
    order = tf.argsort(answers["scores"], direction="DESCENDING", stable=True)  # (B, Q)
    labels = tf.gather(answers["labels"], order, batch_dims=1)
    return {
        "boxes": tf.gather(boxes, order, batch_dims=1),
        "scores": tf.gather(answers["scores"], order, batch_dims=1),
        "classes": tf.gather(names, labels),
        "labels": labels,
        "queries": order,
        "count": tf.reduce_sum(tf.cast(answers["scores"] >= THRESHOLD, tf.int32), axis=1),
    }
