"""Every PiT and ViT at full size in every kind of TFLite file: does it convert, and to what?

    pip install -e .[export]
    python benchmarks/tflite_variants.py

Weights are random, so errors say how the arithmetic holds, not what becomes of a trained model. The
CSV holds sizes, the number of operations that are not built in (Flex or custom ones), and the
largest error over the largest logit on eight pieces of photographs; int8 is calibrated on them too.
"""

import os
import pathlib
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags
from ai_edge_litert.tools.flatbuffer_utils import read_model
from csv_rows import write_rows
from rich.progress import track

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.export.agreement import compare, real_images, take_sample
from pit_keras.export.tflite import TFLITE_KINDS, export_tflite, run_tflite
from pit_keras.runs.trained_model import TrainedModel

FLAGS = flags.FLAGS
flags.DEFINE_list("patterns", ["pit_*", "vit_*"], "Of names of create_model.")
flags.DEFINE_string("output", "results/tflite_variants.csv", "The CSV to write.")


def main(_):
    names = [name for pattern in FLAGS.patterns for name in pit_keras.list_models(pattern)]
    rows = [row for name in track(names, "Converting") for row in rows_of(name)]
    write_rows(rows, pathlib.Path(FLAGS.output))


def rows_of(name):
    trained = TrainedModel(
        pit_keras.create_model(name), pit_keras.imagenet.class_names(), DataConfig()
    )
    sample = take_sample(real_images(), trained.data, "pieces")
    expected = trained.logits_of_crops(sample.crops)
    calibration = np.concatenate([sample.crops] * 4)
    for kind in TFLITE_KINDS:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "model.tflite")
            export_tflite(trained, path, kind, 1, calibration if kind == "int8" else None)
            agreement = compare(expected, run_tflite(path, sample.crops, threads=2))
            row = {
                "model": name,
                "kind": kind,
                "megabytes": round(path.stat().st_size / 1e6, 1),
                "not_built_in": custom_operations(path),
                "error": f"{agreement.max_difference / agreement.scale:.1e}",
            }
        print(*(f"{key}={value}" for key, value in row.items()), sep="  ", flush=True)
        yield row


def custom_operations(path):
    """How many kinds of operation in a file are not TFLite's own."""
    return sum(code.customCode is not None for code in read_model(str(path)).operatorCodes)


if __name__ == "__main__":
    app.run(main)
