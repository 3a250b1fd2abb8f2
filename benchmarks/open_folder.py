"""How long a run waits for a folder of a million files, against a bare walk over the same folder.

    pip install -e .[train]
    python benchmarks/open_folder.py --output=results/open_folder.csv

Makes a temporary folder of empty .JPEG files in class folders, named as ImageNet's, and removes it
in the end. Then, in turn (A B A B ...):

    scandir   `os.scandir` of every directory, each entry asked whether it is a directory
    open      `open_source("folder:...")` with a held-out share of 0.1: list, sort, hold out
    first     the first element of the training stream: a path with its label

Times are medians in seconds with the folder in the system's cache; `open_over_scandir` is of these.
`resident_mib` is how far the process had grown after the first turn, the data set open, and
`peak_mib` how far it grew at most.
"""

import os
import pathlib
import resource
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags
from csv_rows import write_rows

FLAGS = flags.FLAGS
flags.DEFINE_integer("classes", 1000, "Class folders.", lower_bound=2)
flags.DEFINE_integer("files", 1000, "Files in each class folder.", lower_bound=2)
flags.DEFINE_integer("rounds", 7, "Timed turns.", lower_bound=3)
flags.DEFINE_string("output", "results/open_folder.csv", "The CSV to write.")

MIB = 2**20


def main(_):
    with tempfile.TemporaryDirectory() as folder:
        make_files(folder)
        write_rows([measured(folder)], pathlib.Path(FLAGS.output))


def make_files(folder):
    for number in range(FLAGS.classes):
        name = f"n{number * 7919:08d}"
        os.mkdir(f"{folder}/{name}")
        for file in range(FLAGS.files):
            open(f"{folder}/{name}/{name}_{file * 7919 % 100000}.JPEG", "xb").close()


def measured(folder):
    import tensorflow as tf

    from pit_keras.data.labelled_images import open_source

    tf.constant(["ready"])
    before, turns = resident_bytes(), []
    for turn in range(FLAGS.rounds):
        start = time.perf_counter()
        assert walk(folder) == FLAGS.classes * FLAGS.files
        walked = time.perf_counter()
        source = open_source(f"folder:{folder}")
        opened = time.perf_counter()
        next(iter(source.train_stream(seed=0)))
        turns.append((walked - start, opened - walked, time.perf_counter() - opened))
        if turn == 0:
            resident = resident_bytes() - before
            # Linux counts in KiB.
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    scandir, opening, first = map(statistics.median, zip(*turns, strict=True))
    row = {
        "files": FLAGS.classes * FLAGS.files,
        "classes": FLAGS.classes,
        "scandir_s": round(scandir, 2),
        "open_s": round(opening, 2),
        "first_s": round(first, 2),
        "open_over_scandir": round(opening / scandir, 2),
        "resident_mib": round(resident / MIB),
        "peak_mib": round(peak / MIB),
    }
    print(*(f"{key}={value}" for key, value in row.items()), sep="  ", flush=True)
    return row


def walk(folder):
    """The number of files below a folder."""
    files = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            files += walk(entry.path) if entry.is_dir() else 1
    return files


def resident_bytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    app.run(main)
