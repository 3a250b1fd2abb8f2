"""SavedModel: for TensorFlow Serving, and for any program that has TensorFlow."""

import pathlib
import tempfile

import numpy as np
import tensorflow as tf

from pit_keras.data.detection_preprocessing import preprocess_detection
from pit_keras.data.preprocessing import decode, normalise, preprocess_evaluation, resize_and_crop
from pit_keras.export import sidecars
from pit_keras.models.boxes import detected
from pit_keras.models.features import pre_logits
from pit_keras.models.inference import logits_only, with_dtype_policy
from pit_keras.runs.found_objects import THRESHOLD
from pit_keras.runs.versioned_folder import load_saved_model_from

SIGNATURE = "serving_default"
TOP = 5  # likeliest classes named for each image
_IMAGES = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
_IMAGE_BYTES = tf.TensorSpec((None,), tf.string, name="image_bytes")


def export_saved_model(trained, path, kind="float32"):
    """Writes a SavedModel that takes images as they come from a file.

    Resizing, centre crop and normalisation are inside; using it needs only TensorFlow. Signatures:

    - `serving_default`: `images`, uint8 (B, H, W, 3) of any size, to `logits` and `probabilities`,
      float32 (B, classes), and the k = min(5, classes) likeliest: `top_classes`, strings (B, k),
      and `top_probabilities`, float32 (B, k);
    - `serving_float`: the same for float32 `images` with values in 0..255;
    - `serve_bytes`: the same for `image_bytes`, strings (B,), JPEG or PNG files of any sizes;
    - `features`: `images`, uint8 (B, H, W, 3), to the `features` of `pre_logits`, float32 (B, C);
      not for `bfloat16` and models whose classifier is not known.

    The loaded object has `serve`, one function for uint8 and float32 images, and the assets
    `classes` (one name a line, in the order of the logits) and `preprocessing` (JSON). The kind
    `bfloat16` has half the size, is faster where the device multiplies such numbers, and cannot be
    trained further.
    """
    serve, signatures = _functions(trained, kind)
    weights = trained.model.weights if kind == "float32" else []
    _write(trained, path, serve, signatures, weights)


def _functions(trained, kind):
    """The function `serve`, and the signatures by name."""
    data, network = trained.data, _network(trained.model, kind)
    names = tf.constant(trained.class_names)
    crop_spec = tf.TensorSpec((*data.image_size, 3), tf.float32)

    # Traced and stored once for all signatures.
    @tf.function(autograph=False)
    def classify(normalised):
        logits = network(normalised)
        probabilities = tf.nn.softmax(logits)
        top = tf.math.top_k(probabilities, min(TOP, len(trained.class_names)))
        return {
            "logits": logits,
            "probabilities": probabilities,
            "top_classes": tf.gather(names, top.indices),
            "top_probabilities": top.values,
        }

    @tf.function(autograph=False)
    def serve(images):
        return classify(preprocess_evaluation(images, data))

    def crop(contents):
        return resize_and_crop(
            decode(contents, data.apply_orientation), data.image_size, data.eval_crop
        )

    @tf.function(autograph=False)
    def serve_bytes(image_bytes):
        crops = tf.map_fn(crop, image_bytes, fn_output_signature=crop_spec)
        return classify(normalise(crops, data.mean, data.std))

    float_images = tf.TensorSpec(_IMAGES.shape, tf.float32, name="images")
    signatures = {
        SIGNATURE: serve.get_concrete_function(_IMAGES),
        "serving_float": serve.get_concrete_function(float_images),
        "serve_bytes": serve_bytes.get_concrete_function(_IMAGE_BYTES),
    }
    try:
        features = pre_logits(trained.model)
    except ValueError:  # a model from elsewhere
        features = None
    if kind == "float32" and features is not None:

        @tf.function(autograph=False)
        def describe(images):
            return {"features": features(preprocess_evaluation(images, data))}

        signatures["features"] = describe.get_concrete_function(_IMAGES)
    return serve, signatures


def _network(model, kind):
    model = logits_only(with_dtype_policy(model, kind))
    if kind == "float32":
        return lambda images: model(images, training=False)
    trainable = [variable.numpy() for variable in model.trainable_variables]
    others = [variable.numpy() for variable in model.non_trainable_variables]

    def network(images):
        # Constants, since a CPU's library rearranges a product's variables in each call.
        constants = tf.nest.map_structure(tf.constant, (trainable, others))
        logits, _ = model.stateless_call(*constants, images, training=False)
        return tf.cast(logits, tf.float32)

    return network


def export_detector_saved_model(trained, path):
    """Writes a SavedModel of a `TrainedDetector` that gives boxes in images as they come.

    Resizing, padding and normalisation are inside. Signatures:

    - `serving_default`: `images`, uint8 (B, H, W, 3) of any size, to the answers of Q queries, the
      highest score first: `boxes`, float32 (B, Q, 4), left, top, right, bottom in pixels, within
      the image; `scores`, float32 (B, Q); `classes`, strings (B, Q), and `labels`, int32 (B, Q),
      their numbers; `queries`, int32 (B, Q), the queries' numbers; and `count`, int32 (B,): the
      first `count` answers have a score of `THRESHOLD` or more;
    - `serve_bytes`: the same for `image_bytes`, strings (B,), JPEG or PNG files of any sizes.

    `serve` and the assets are as those of `export_saved_model`.
    """
    names = tf.constant(trained.class_names)

    # Without a signature of its own, for which `tf.saved_model.save` would trace it once more.
    @tf.function(autograph=False)
    def serve(images):
        shape = tf.shape(images)
        sizes = tf.tile(shape[tf.newaxis, 1:3], [shape[0], 1])
        inputs = preprocess_detection(images, trained.data, trained.fixed_size)
        return _in_order(detected(trained.outputs(inputs), sizes), sizes, names)

    def serve_one(contents):
        answers = serve(decode(contents, trained.apply_orientation)[tf.newaxis])
        return {name: value[0] for name, value in answers.items()}

    serve_images = serve.get_concrete_function(_IMAGES)
    outputs = serve_images.structured_outputs
    of_one = {name: tf.TensorSpec(spec.shape[1:], spec.dtype) for name, spec in outputs.items()}

    @tf.function(autograph=False)
    def serve_bytes(image_bytes):
        # One after the other, since their sizes differ.
        return tf.map_fn(serve_one, image_bytes, fn_output_signature=of_one, parallel_iterations=1)

    signatures = {
        SIGNATURE: serve_images,
        "serve_bytes": serve_bytes.get_concrete_function(_IMAGE_BYTES),
    }
    _write(trained, path, serve, signatures, trained.model.weights)


def _in_order(answers, sizes, names):
    """The answers of `detected`, cut to the images, sorted by score, and named."""
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


def _write(trained, path, serve, signatures, weights):
    attributes = {"serve": serve}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in sidecars.texts(trained).items():
            file = pathlib.Path(folder, name)
            file.write_bytes(text.encode())
            attributes[file.stem] = tf.saved_model.Asset(file)
        _save(signatures, weights, path, **attributes)
    sidecars.write_warm_up(path, trained.model.name, trained.data.image_size)


def save_function(function, inputs, model, path):
    """Writes a SavedModel of one function of a model's weights, its signature `serving_default`.

    `function` takes tensors as the `tf.TensorSpec` in `inputs` and returns a dictionary of tensors.
    """
    function = tf.function(function, input_signature=inputs, autograph=False)
    _save({SIGNATURE: function}, model.weights, path)


def _save(signatures, weights, path, **attributes):
    # `keras.export.ExportArchive` does the same, but has no place for an asset.
    module = tf.Module()
    module.weights = [weight.value for weight in weights]
    for name, attribute in attributes.items():
        setattr(module, name, attribute)
    tf.saved_model.save(module, str(path), signatures=signatures)


def run_saved_model(path, images):
    """Logits (N, classes) of a SavedModel for uint8 images (H, W, 3) of any sizes."""
    return np.concatenate([found["logits"] for found in map(load_saved_model(path), images)])


def load_saved_model(path):
    """A function of one uint8 image (H, W, 3) of any size: a SavedModel's outputs by name."""
    loaded = load_saved_model_from(path)

    def serve(image):
        # By way of `loaded`, since its variables live as long as it does.
        outputs = loaded.signatures[SIGNATURE](images=tf.constant(image[np.newaxis]))
        return {name: output.numpy() for name, output in outputs.items()}

    return serve
