"""What measuring the spatial interaction costs: PiT-S with it against its plain forward pass.

    pip install -e .[train]
    python benchmarks/interaction.py --output=results/interaction.csv

Both run in this one process, compiled by `tf.function`, in turn (A B A B ...), so that a machine
whose speed drifts slows both alike. The plain pass computes logits; the analysis leaves the
classifier out and gives the shares of all blocks at two thresholds. The CSV holds medians and their
ratio, that of the analysis over the plain pass: lower is better.
"""

import os
import pathlib
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from absl import app, flags
from csv_rows import write_rows

import pit_keras
from pit_keras.explain.interaction import interaction_model

FLAGS = flags.FLAGS
flags.DEFINE_list("models", ["pit_s", "vit_s"], "PiTs and ViTs of create_model.")
flags.DEFINE_list("batch_sizes", ["1", "16"], "Images that pass the model at once.")
flags.DEFINE_integer("repeats", 15, "Timed calls of each side and each row.", lower_bound=3)
flags.DEFINE_string("output", "results/interaction.csv", "The CSV to write.")


def main(_):
    rows = []
    for name in FLAGS.models:
        model = pit_keras.create_model(name)
        for batch in map(int, FLAGS.batch_sizes):
            rows.append({"model": name, "batch": batch, **compared(model, batch)})
            print(*(f"{key}={value}" for key, value in rows[-1].items()), sep="  ", flush=True)
    write_rows(rows, pathlib.Path(FLAGS.output))


def compared(model, batch):
    images = tf.random.stateless_normal((batch, *model.input_shape[1:]), seed=(0, 0))
    functions = [
        tf.function(lambda x, network=network: network(x, training=False))
        for network in (model, interaction_model(model))
    ]
    for function in 2 * functions:  # traces, and warms up
        function(images)
    times = ([], [])
    for _ in range(FLAGS.repeats):
        for function, seconds in zip(functions, times, strict=True):
            start = time.perf_counter()
            function(images).numpy()
            seconds.append(time.perf_counter() - start)
    plain, analysis = (1000 * statistics.median(seconds) for seconds in times)
    return {
        "plain_ms": round(plain, 1),
        "analysis_ms": round(analysis, 1),
        "ratio": round(analysis / plain, 2),
    }


if __name__ == "__main__":
    app.run(main)
