"""Speed of the three detectors side by side: forward pass, training step, and the matching in it.

    pip install -e .[train]
    python benchmarks/detectors.py --output=results/detectors.csv

It is the last column of the PiT paper's table 4, as ratios: each figure's `..._ratio` is over that
of the first model, more is faster. All three are built in one process and take turns, so that a
slow moment of the machine falls on all of them; times are medians over the repeats. The training
step is the trainer's: forward pass with the losses of all decoder layers, gradient, AdamW's update.
Images are noise; boxes are drawn, about seven an image as in COCO. `matching_share` is the time of
costs and assignments (all layers, padded to 100 boxes) over that of the step.
"""

import pathlib
import statistics
import time

from absl import app, flags
from csv_rows import write_rows

from pit_keras.models.detr import COCO_CLASSES as CLASSES

FLAGS = flags.FLAGS
flags.DEFINE_list("models", ["detr_resnet50", "detr_vit_s", "detr_pit_s"], "Which detectors.")
flags.DEFINE_list("image_size", ["400", "600"], "Height and width in pixels.")
flags.DEFINE_integer("batch_size", 8, "Images of a training step.", lower_bound=1)
flags.DEFINE_integer("inference_batch_size", 1, "Images of a forward pass.", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "Timed calls of each kind and model.", lower_bound=1)
flags.DEFINE_enum(
    "precision", "float32", ["float32", "mixed_bfloat16", "mixed_float16"], "Of activations."
)
flags.DEFINE_string("output", "results/detectors.csv", "The CSV to write.")

MOST_BOXES, MEAN_BOXES = 100, 7


def main(_):
    import keras

    from pit_keras.measure.machine import description

    keras.config.set_dtype_policy(FLAGS.precision)
    calls = {name: calls_of(name) for name in FLAGS.models}
    kinds = ("inference", "training", "matching")
    times = {name: {kind: [] for kind in kinds} for name in FLAGS.models}
    for repeat in range(FLAGS.repeats + 1):
        for kind in kinds:
            for name in FLAGS.models:
                seconds = seconds_of(calls[name][kind])
                if repeat:  # the first call traces
                    times[name][kind].append(seconds)
        print(f"{repeat} of {FLAGS.repeats} repeats", flush=True)
    medians = {
        name: {kind: statistics.median(found) for kind, found in of_model.items()}
        for name, of_model in times.items()
    }
    rows = [
        row(name, medians[name], medians[FLAGS.models[0]], description()) for name in FLAGS.models
    ]
    for found in rows:
        print(*(f"{key}={value}" for key, value in found.items()), sep="  ")
    write_rows(rows, pathlib.Path(FLAGS.output))


def row(name, of_model, of_first, where):
    """A model's figures as a row of the table."""
    return {
        "model": name,
        "image_size": "x".join(FLAGS.image_size),
        "inference_batch_size": FLAGS.inference_batch_size,
        "images_per_second": round(FLAGS.inference_batch_size / of_model["inference"], 3),
        "inference_ratio": round(of_first["inference"] / of_model["inference"], 2),
        "batch_size": FLAGS.batch_size,
        "training_step_ms": round(1000 * of_model["training"]),
        "training_ratio": round(of_first["training"] / of_model["training"], 2),
        "matching_ms": round(1000 * of_model["matching"], 1),
        "matching_share": round(of_model["matching"] / of_model["training"], 4),
        "precision": FLAGS.precision,
        "repeats": FLAGS.repeats,
        **where,
    }


def calls_of(name):
    """Functions without arguments, by kind; each waits for its result."""
    import tensorflow as tf

    from pit_keras.config.recipes import recipe
    from pit_keras.create import create_model
    from pit_keras.training.assembly import optimizer_of
    from pit_keras.training.detection_task import DetectionLoss
    from pit_keras.training.matching import match
    from pit_keras.training.step import compiled_step

    config = recipe("detr", name)
    config.training.batch_size, config.training.precision = FLAGS.batch_size, FLAGS.precision
    height, width = map(int, FLAGS.image_size)
    model = create_model(name, classes=CLASSES, input_shape=(height, width, 3))
    strategy = tf.distribute.get_strategy()
    optimizer = optimizer_of(config, model, steps=1000)
    step = compiled_step(
        config, model, DetectionLoss(config, model), optimizer, strategy, jit=False
    )
    batch = drawn_batch(FLAGS.batch_size, height, width)
    images = batch["image"][: FLAGS.inference_batch_size]
    predict = tf.function(lambda x: model(x, training=False), autograph=False)
    shape = (FLAGS.batch_size, config.model.decoder_layers or 6, MOST_BOXES)
    logits = tf.random.stateless_normal((*shape, CLASSES + 1), seed=(0, 1))
    boxes = tf.random.stateless_uniform((*shape, 4), seed=(0, 2))
    matching = tf.function(match, autograph=False)
    return {
        "inference": lambda: predict(images)["boxes"].numpy(),
        "training": lambda: float(step(batch, tf.constant(0, tf.int64), tf.zeros(2))["loss"]),
        "matching": lambda: matching(logits, boxes, batch["boxes"], batch["labels"]).numpy(),
    }


def drawn_batch(size, height, width):
    """A batch as `pit_keras.data.detection_pipeline` gives it, without padding."""
    import numpy as np

    drawn = np.random.default_rng(0)
    counts = np.clip(drawn.geometric(1 / MEAN_BOXES, size), 1, 60)
    sizes = drawn.uniform(0.05, 0.4, (size, MOST_BOXES, 2))
    centres = sizes / 2 + drawn.uniform(size=sizes.shape) * (1 - sizes)
    labels = drawn.integers(0, CLASSES, (size, MOST_BOXES))
    return {
        "image": as_tensor(drawn.normal(size=(size, height, width, 3)), "float32"),
        "padding_mask": as_tensor(np.zeros((size, height, width)), "bool"),
        "boxes": as_tensor(np.concatenate([centres, sizes], axis=-1), "float32"),
        "labels": as_tensor(np.where(np.arange(MOST_BOXES) < counts[:, None], labels, -1), "int32"),
    }


def as_tensor(values, dtype):
    import tensorflow as tf

    return tf.constant(values.astype(dtype))


def seconds_of(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    app.run(main)
