"""Memory and time of a forward pass and its gradient, blocks' activations kept or computed again.

    pip install -e .[train]
    python benchmarks/gradient_memory.py --output=benchmarks/results/gradient_memory.csv

Memory: each row runs in a fresh process on the CPU, which builds the model, notes its resident
memory, takes one gradient (tracing and compiling) and notes the peak of the two that follow.
`gradient_mib` is the difference, the gradients themselves included; `process_mib` is the peak.
Time: one process for each setting of XLA takes turns between the two ways; `gradient_ms` is the
median, and `time_ratio` is over that of kept activations.
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
flags.DEFINE_string("model", "pit_s", "Name of the model.")
flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", lower_bound=16)
flags.DEFINE_integer("batch_size", 8, "Images of a batch.", lower_bound=1)
flags.DEFINE_float("drop_path_rate", 0.1, "Stochastic depth of the last block.")
flags.DEFINE_float("drop_rate", 0.0, "Dropout of activations.")
flags.DEFINE_float("attention_drop_rate", 0.0, "Dropout of attention weights.")
flags.DEFINE_enum("precision", "float32", ["float32", "mixed_bfloat16"], "Keras' dtype policy.")
flags.DEFINE_integer("repeats", 7, "Timed gradients of each way.", lower_bound=1)
flags.DEFINE_string("output", "benchmarks/results/gradient_memory.csv", "The CSV to write.")
flags.DEFINE_string("measure", None, "Set by the program itself: what to measure here, as JSON.")

MIB = 2**20


def main(_):
    if FLAGS.measure:
        what, *arguments = json.loads(FLAGS.measure)
        print(json.dumps({"memory": memory, "milliseconds": milliseconds}[what](*arguments)))
        return
    rows = []
    for jit in (False, True):
        times = in_fresh_process("milliseconds", jit)
        for recompute, gradient_ms in zip((False, True), times, strict=True):
            rows.append(
                {
                    "model": FLAGS.model,
                    "image_size": FLAGS.image_size,
                    "batch_size": FLAGS.batch_size,
                    "drop_path_rate": FLAGS.drop_path_rate,
                    "drop_rate": FLAGS.drop_rate,
                    "attention_drop_rate": FLAGS.attention_drop_rate,
                    "precision": FLAGS.precision,
                    "xla": jit,
                    "recompute": recompute,
                    **in_fresh_process("memory", jit, recompute),
                    "gradient_ms": round(gradient_ms),
                    "time_ratio": round(gradient_ms / times[0], 2),
                }
            )
            print(*(f"{key}={value}" for key, value in rows[-1].items()), sep="  ", flush=True)
    write_rows(rows, pathlib.Path(FLAGS.output))


def in_fresh_process(*what):
    process = subprocess.run(
        [sys.executable, *sys.argv, f"--measure={json.dumps(what)}"],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


def memory(jit, recompute):
    """Growth of this process's resident memory at its peak, and the peak, in MiB."""
    model = built()
    before = status_bytes("VmRSS")
    step = gradient_step(model, jit, recompute)
    step()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident now
    for _ in range(2):
        step()
    peak = status_bytes("VmHWM")
    return {"gradient_mib": round((peak - before) / MIB), "process_mib": round(peak / MIB)}


def milliseconds(jit):
    """Medians of a gradient with activations kept and computed again, taken in turn."""
    model = built()
    steps = [gradient_step(model, jit, recompute) for recompute in (False, True)]
    for step in steps * 2:
        step()
    times = [[], []]
    for _ in range(FLAGS.repeats):
        for step, seconds in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
    return [1000 * statistics.median(seconds) for seconds in times]


def built():
    import keras

    import pit_keras

    keras.config.set_dtype_policy(FLAGS.precision)
    return pit_keras.create_model(
        FLAGS.model,
        input_shape=(FLAGS.image_size, FLAGS.image_size, 3),
        drop_path_rate=FLAGS.drop_path_rate,
        drop_rate=FLAGS.drop_rate,
        attention_drop_rate=FLAGS.attention_drop_rate,
    )


def gradient_step(model, jit, recompute):
    """A function without arguments that takes a gradient and waits for it."""
    import keras
    import tensorflow as tf

    from pit_keras.models import recomputing_blocks, tracing_for_xla

    images = tf.zeros((FLAGS.batch_size, FLAGS.image_size, FLAGS.image_size, 3))
    labels = tf.zeros((FLAGS.batch_size,), "int32")

    @tf.function(jit_compile=jit)
    def gradients():
        with tracing_for_xla(jit), recomputing_blocks(recompute), tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(losses)
        return tape.gradient(loss, model.trainable_variables)

    return lambda: gradients()[-1].numpy()


def status_bytes(key):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) * 1024


if __name__ == "__main__":
    app.run(main)
