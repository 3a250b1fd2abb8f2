"""Memory of feature extraction at 600 x 400, batch 1: how far the process grows at its peak.

    pip install -e .[train]
    python benchmarks/feature_memory.py --output=results/feature_memory.csv

Each row runs in a fresh process, which builds the model for images of any size, notes its resident
memory, calls the extractor eagerly three times and notes the peak. `extraction_mib` is the
difference, `process_mib` the peak itself, TensorFlow and the weights included.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys

from absl import app, flags
from csv_rows import write_rows

FLAGS = flags.FLAGS
flags.DEFINE_integer("width", 600, "Width of the image in pixels.", lower_bound=16)
flags.DEFINE_integer("height", 400, "Height of the image in pixels.", lower_bound=16)
flags.DEFINE_string("output", "results/feature_memory.csv", "The CSV to write.")
flags.DEFINE_string("row", None, "Set by the program itself: one row as JSON, to measure here.")

# Name of the model, overrides of its row.
MODELS = [
    ("pit_s", {}),
    ("pit_s", {"output_stride": 16}),
    ("vit_s", {}),
    ("resnet50", {}),
    ("resnet50", {"output_stride": 16}),
]
MIB = 2**20


def main(_):
    if FLAGS.row:
        print(json.dumps(measured(*json.loads(FLAGS.row))))
        return
    rows = []
    for row in MODELS:
        rows.append(in_fresh_process(row))
        print(*(f"{key}={value}" for key, value in rows[-1].items()), sep="  ", flush=True)
    write_rows(rows, pathlib.Path(FLAGS.output))


def in_fresh_process(row):
    arguments = [f"--width={FLAGS.width}", f"--height={FLAGS.height}", f"--row={json.dumps(row)}"]
    process = subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


def measured(name, overrides):
    import keras
    import numpy as np

    import pit_keras

    model = pit_keras.create_model(name, input_shape=(None, None, 3), **overrides)
    extractor = pit_keras.stage_features(model)
    images = np.zeros((1, FLAGS.height, FLAGS.width, 3), "float32")
    before = resident_bytes()
    for _ in range(3):
        maps = extractor(images)
    maps = maps if isinstance(maps, list) else [maps]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return {
        "model": " ".join([name, *(f"{key}={value}" for key, value in overrides.items())]),
        "backend": keras.backend.backend(),
        "image": f"{FLAGS.width}x{FLAGS.height}",
        "maps": " ".join("x".join(map(str, feature_map.shape[1:])) for feature_map in maps),
        "extraction_mib": round((peak - before) / MIB),
        "process_mib": round(peak / MIB),
    }


def resident_bytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    app.run(main)
