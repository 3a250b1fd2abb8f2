"""Time and memory of a training step: precisions, XLA, recomputed blocks, accumulated batches.

    pip install -e .[train]
    python benchmarks/training_step.py --output=results/training_step.csv

Each row is a process of its own, on the CPU or whatever TensorFlow finds: it builds the model and
takes whole steps (forward pass, gradient, AdamP's update) on one batch. `step_ms` is the median of
some after the first, `first_step_s` the first, which traces and compiles; `ratio` is the median
over that of the model's first row. `step_mib` is the peak of the resident memory over what the
process had with model and optimizer built, on the CPU only.
"""

import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

from absl import app, flags
from csv_rows import write_rows

FLAGS = flags.FLAGS
flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", lower_bound=32)
flags.DEFINE_integer("batch_size", 8, "Images of an update.", lower_bound=2)
flags.DEFINE_integer("repeats", 7, "Timed steps of each row.", lower_bound=1)
flags.DEFINE_list("models", ["pit_s", "resnet50"], "Which models' rows to measure.")
flags.DEFINE_string("output", "results/training_step.csv", "The CSV to write.")
flags.DEFINE_string("measure", None, "Set by the program itself: the row to measure, as JSON.")

MIB = 2**20
# (precision, XLA, blocks recomputed, batches of an update); the first is what others are put over.
TRANSFORMER_ROWS = (
    ("float32", False, False, 1),
    ("float32", True, False, 1),
    ("mixed_bfloat16", False, False, 1),
    ("mixed_bfloat16", True, False, 1),
    ("mixed_float16", False, False, 1),
    ("mixed_float16", True, False, 1),
    ("float32", False, True, 1),
    ("float32", True, True, 1),
    ("float32", False, False, 2),
    ("float32", True, False, 2),
)
CONVOLUTIONAL_ROWS = (("float32", False, False, 1), ("float32", True, False, 1))


def main(_):
    if FLAGS.measure:
        print(json.dumps(measured(*json.loads(FLAGS.measure))))
        return
    rows = []
    for model in FLAGS.models:
        is_transformer = model.startswith(("pit", "vit"))
        first = None
        for settings in TRANSFORMER_ROWS if is_transformer else CONVOLUTIONAL_ROWS:
            precision, jit, recompute, accumulate = settings
            found = in_fresh_process(model, *settings)
            first = first or found["step_ms"]
            rows.append(
                {
                    "model": model,
                    "image_size": FLAGS.image_size,
                    "images_of_update": FLAGS.batch_size,
                    "precision": precision,
                    "xla": jit,
                    "recompute_blocks": recompute,
                    "accumulate": accumulate,
                    **found,
                    "ratio": round(found["step_ms"] / first, 2),
                }
            )
            print(*(f"{key}={value}" for key, value in rows[-1].items()), sep="  ", flush=True)
            write_rows(rows, pathlib.Path(FLAGS.output))


def in_fresh_process(*row):
    process = subprocess.run(
        [sys.executable, *sys.argv, f"--measure={json.dumps(row)}"],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


def measured(model, precision, jit, recompute, accumulate):
    """One row's figures, in this process."""
    import keras

    keras.config.set_dtype_policy(precision)
    step = training_step(model, precision, jit, recompute, accumulate)
    before = status_bytes("VmRSS")
    first = seconds_of(step)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident now
    times = [seconds_of(step) for _ in range(FLAGS.repeats)]
    return {
        "first_step_s": round(first, 1),
        "step_ms": round(1000 * statistics.median(times)),
        "step_mib": round((status_bytes("VmHWM") - before) / MIB),
    }


def training_step(name, precision, jit, recompute, accumulate):
    """A function without arguments that takes a step and waits for it."""
    import tensorflow as tf

    from pit_keras.config.recipes import recipe
    from pit_keras.create import create_model
    from pit_keras.training.assembly import optimizer_of
    from pit_keras.training.classification_task import ClassificationLoss
    from pit_keras.training.step import compiled_step

    config = recipe("vanilla", name)
    config.training.batch_size = FLAGS.batch_size // accumulate
    config.training.accumulate, config.training.precision = accumulate, precision
    config.training.recompute_blocks = recompute
    rate = {"drop_path_rate": 0.1}
    model = create_model(name, input_shape=(FLAGS.image_size, FLAGS.image_size, 3), **rate)
    optimizer = optimizer_of(config, model, steps=1000)
    strategy = tf.distribute.get_strategy()
    step = compiled_step(
        config, model, ClassificationLoss(config, model), optimizer, strategy, jit=jit
    )
    images = tf.random.stateless_normal(
        (FLAGS.batch_size, FLAGS.image_size, FLAGS.image_size, 3), seed=(0, 0)
    )
    labels = tf.one_hot(tf.range(FLAGS.batch_size), 1000)
    batch = {"image": images, "label": labels}
    return lambda: float(step(batch, tf.constant(0, tf.int64), tf.zeros(2))["loss"])


def seconds_of(step):
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def status_bytes(key):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) * 1024


if __name__ == "__main__":
    app.run(main)
