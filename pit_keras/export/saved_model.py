"""SavedModel: for TensorFlow Serving, and for any program that has TensorFlow.

First classifiers, then detectors, then how both are run.
"""

import pathlib
import tempfile

import numpy as np
import tensorflow as tf

from pit_keras.data.detection_preprocessing import preprocess_detection
from pit_keras.data.preprocessing import decode, normalise, preprocess_evaluation, resize_and_crop
from pit_keras.export.agreement import CALLS, median_milliseconds
from pit_keras.export.sidecars import (
    CLASSES_FILE,
    PREPROCESSING_FILE,
    class_names_text,
    detection_preprocessing_text,
    preprocessing_text,
    write_warm_up,
)
from pit_keras.models.detr_outputs import detected
from pit_keras.models.dtype_policy import with_dtype_policy
from pit_keras.models.features import pre_logits
from pit_keras.models.inference import logits_only
from pit_keras.runs.found_objects import THRESHOLD
from pit_keras.runs.versioned_folder import find_saved_model, version_folder

SIGNATURE = "serving_default"
TOP = 5  # classes that are named for each image, or all if there are fewer


def export_saved_model(trained, path, kind="float32"):
    """Writes a SavedModel that takes images as they come from a file.

    The model lies in `version_folder(path)`, as TensorFlow Serving expects it. Resizing, centre
    crop and normalisation are inside, and nothing but TensorFlow is needed to use it. Signatures:

    - `serving_default`: `images`, uint8 (B, H, W, 3) of any size, to `logits` and `probabilities`,
      float32 (B, classes), and to `top_classes`, strings (B, k), and `top_probabilities`, float32
      (B, k), the likeliest k = min(5, classes), likeliest first;
    - `serving_float`: the same for float32 `images` with values in 0..255;
    - `serve_bytes`: the same for `image_bytes`, strings (B,) that each hold a JPEG or PNG file, of
      different sizes too; the pixels are those of `data.preprocessing.decode`;
    - `features`: `images`, uint8 (B, H, W, 3) of any size, to `features`, float32 (B, C), which
      `pre_logits` describes. A model whose classifier `pre_logits` cannot tell does without, and
      so does one of the kind `bfloat16`.

    Of the object that `tf.saved_model.load` gives, `serve` is one function for uint8 and float32
    images, and `classes` and `preprocessing` are the assets `classes.txt`, one name a line in the
    order of the logits, and `preprocessing.json`: `loaded.classes.asset_path` is the file's path.
    TensorFlow Serving finds warm-up requests, see `write_warm_up`.

    Args:
        trained: A `TrainedModel` on Keras' TensorFlow backend.
        path: The folder to write, a new one.
        kind: `float32`; or `bfloat16`, which has half the size and is faster where the device
            multiplies such numbers. Its weights cannot be trained further.

    Raises:
        ValueError: If a class name holds a line break, or the kind is another.
    """
    serve, signatures = _functions(trained, kind)
    weights = trained.model.weights if kind == "float32" else []
    _write(trained, path, serve, signatures, weights, preprocessing_text(trained.data))


def _functions(trained, kind):
    """The function `serve`, of images of either type, and the signatures by name."""
    data, network = trained.data, _network(trained.model, kind)
    names = tf.constant(trained.class_names)
    crop_spec = tf.TensorSpec((*data.image_size, 3), tf.float32)

    # A function of its own, so that the network is traced and stored once for all that share it.
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
        return resize_and_crop(decode(contents), data.image_size, data.eval_crop)

    @tf.function(autograph=False)
    def serve_bytes(image_bytes):
        crops = tf.map_fn(crop, image_bytes, fn_output_signature=crop_spec)
        return classify(normalise(crops, data.mean, data.std))

    images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
    float_images = tf.TensorSpec(images.shape, tf.float32, name="images")
    signatures = {
        SIGNATURE: serve.get_concrete_function(images),
        "serving_float": serve.get_concrete_function(float_images),
        "serve_bytes": serve_bytes.get_concrete_function(
            tf.TensorSpec((None,), tf.string, name="image_bytes")
        ),
    }
    features = _feature_model(trained.model) if kind == "float32" else None
    if features is not None:
        describe = tf.function(
            lambda images: {"features": features(preprocess_evaluation(images, data))},
            autograph=False,
        )
        signatures["features"] = describe.get_concrete_function(images)
    return serve, signatures


def _network(model, kind):
    """A function of normalised images (B, H, W, 3), float32, that gives logits (B, classes)."""
    if kind == "float32":
        model = logits_only(model)
        return lambda images: model(images, training=False)
    if kind != "bfloat16":
        raise ValueError(f"Unknown kind of SavedModel {kind!r}; known are float32, bfloat16.")
    model = logits_only(with_dtype_policy(model, "bfloat16"))
    trainable = [variable.numpy() for variable in model.trainable_variables]
    others = [variable.numpy() for variable in model.non_trainable_variables]

    def network(images):
        # A processor's library arranges constant weights for its products once, variables in each
        # call.
        constants = tf.nest.map_structure(tf.constant, (trainable, others))
        logits, _ = model.stateless_call(*constants, images, training=False)
        return tf.cast(logits, tf.float32)

    return network


def _feature_model(model):
    try:
        return pre_logits(model)
    except ValueError:  # a model from elsewhere
        return None


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
    serve, signatures = _detector_functions(trained)
    preprocessing = detection_preprocessing_text(trained.data, trained.fixed_size)
    _write(trained, path, serve, signatures, trained.model.weights, preprocessing)


def _detector_functions(trained):
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


def _write(trained, path, serve, signatures, weights, preprocessing):
    """Writes the functions with what travels with them, for the Keras variables that they use."""
    names = class_names_text(trained.class_names)
    texts = {CLASSES_FILE: names, PREPROCESSING_FILE: preprocessing}
    with tempfile.TemporaryDirectory() as assets:
        for name, text in texts.items():
            pathlib.Path(assets, name).write_bytes(text.encode())
        _save(
            signatures,
            weights,
            version_folder(path),
            serve=serve,
            classes=tf.saved_model.Asset(pathlib.Path(assets, CLASSES_FILE)),
            preprocessing=tf.saved_model.Asset(pathlib.Path(assets, PREPROCESSING_FILE)),
        )
    write_warm_up(version_folder(path), trained.model.name, trained.data.image_size)


def save_function(function, inputs, model, path):
    """Writes a SavedModel of one function, its signature `serving_default`.

    Args:
        function: Takes tensors, returns a dictionary of tensors: the signature's outputs.
        inputs: The `tf.TensorSpec` of each; their names are the signature's arguments.
        model: The Keras model whose weights the function uses.
        path: The folder to write.
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
    """Logits (N, classes) of a SavedModel for a list of uint8 images (H, W, 3) of any sizes.

    Raises:
        FileNotFoundError: If there is no SavedModel at the path.
    """
    return np.concatenate([answer["logits"] for answer in saved_model_answers(path, images)])


def saved_model_answers(path, images):
    """What a SavedModel answers for uint8 images (H, W, 3) of any sizes, one after the other.

    Raises:
        FileNotFoundError: If there is no SavedModel at the path.
    """
    loaded = _load(path)  # its variables live as long as it does
    serve = loaded.signatures[SIGNATURE]
    for image in images:
        answers = serve(images=tf.constant(image[np.newaxis]))
        yield {name: answer.numpy() for name, answer in answers.items()}


def saved_model_latency(path, image, calls=CALLS):
    """Median milliseconds of a call with one image, uint8 (H, W, 3), resizing included.

    It runs on as many threads as TensorFlow has in this process.
    """
    loaded = _load(path)
    serve, images = loaded.signatures[SIGNATURE], tf.constant(image[np.newaxis])
    return median_milliseconds(
        lambda: [each.numpy() for each in serve(images=images).values()], calls
    )


def _load(path):
    folder = find_saved_model(path)
    if folder is None:
        raise FileNotFoundError(f"There is no SavedModel in {path}.")
    return tf.saved_model.load(str(folder))
