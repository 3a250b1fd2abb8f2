"""Loading a converted checkpoint from the Keras cache against reading its file with NumPy.

    pip install -e .[convert] tensorflow
    python benchmarks/load_weights.py --output=results/load_weights.csv

The checkpoint is a model's own random weights, written as `weights="imagenet"` would write the
released ones. Loading is verification, adaptation and assignment into a model that is there.
Reading is `safetensors.numpy.load_file` of the same file, which gives NumPy's arrays, and
`numpy.fromfile`, which gives bytes. They run in turn (A B C A B C ...) with the file in the page
cache. The CSV holds the quickest call of each, the one that the rest of the machine disturbed
least, and the ratios to both ways of reading: lower is better.
"""

import os
import pathlib
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import safetensors.numpy
from absl import app, flags
from csv_rows import write_rows

import pit_keras
from pit_keras.weights import released
from pit_keras.weights.loading import carry_over
from pit_keras.weights.recognition import Checkpoint

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "pit_b", "A model of create_model.")
flags.DEFINE_integer("repeats", 30, "Timed calls of each.", lower_bound=3)
flags.DEFINE_string("output", "results/load_weights.csv", "The CSV to write.")


def main(_):
    model = pit_keras.create_model(FLAGS.model)
    with tempfile.TemporaryDirectory() as folder:
        converted = pathlib.Path(folder) / "converted.safetensors"
        values = {variable.path: variable.numpy() for variable in model.weights}
        released.write_converted(converted, Checkpoint(FLAGS.model, values), {})
        times = timed(
            {
                "numpy.fromfile": lambda: np.fromfile(converted, np.uint8),
                "safetensors.numpy.load_file": lambda: safetensors.numpy.load_file(converted),
                "into a model": lambda: carry_over(released.read_converted(converted)[0], model),
            }
        )
        megabytes = converted.stat().st_size / 1e6
    rows = [
        {
            "model": FLAGS.model,
            "megabytes": round(megabytes, 1),
            "what": what,
            "ms": round(1000 * seconds, 1),
            "over_numpy_arrays": round(seconds / times["safetensors.numpy.load_file"], 2),
            "over_numpy_bytes": round(seconds / times["numpy.fromfile"], 2),
        }
        for what, seconds in times.items()
    ]
    for row in rows:
        print(*(f"{key}={value}" for key, value in row.items()), sep="  ")
    write_rows(rows, pathlib.Path(FLAGS.output))


def timed(calls):
    """Seconds of the quickest call of each."""
    times = {what: [] for what in calls}
    for _ in range(FLAGS.repeats + 1):
        for what, call in calls.items():
            start = time.perf_counter()
            call()
            times[what].append(time.perf_counter() - start)
    return {what: min(seconds[1:]) for what, seconds in times.items()}


if __name__ == "__main__":
    app.run(main)
