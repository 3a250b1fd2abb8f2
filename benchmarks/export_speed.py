"""Exported PiT-S against timm's PyTorch model: LiteRT, SavedModel, ONNX Runtime and OpenVINO.

    pip install -e '.[export,onnx]' torch timm openvino
    python benchmarks/export_speed.py

All run in this one process with two threads, in turn (A B C ... A B C ...), so that a machine whose
speed drifts slows all alike. Each gets what it takes: PyTorch normalised floats, ours uint8 pixels
of the model's own size, whose normalisation is part of what is timed. The CSV holds medians and
timm's eager time over each: higher is better. Weights are random, the same for all; int8 is
calibrated on scikit-learn's photographs.
"""

import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
THREADS = 2
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))

import numpy as np
import onnxruntime
import openvino
import tensorflow as tf
import timm
import torch
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter
from csv_rows import write_rows

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.export.agreement import real_images, take_sample
from pit_keras.export.families import FAMILIES, Job
from pit_keras.export.formats import FORMATS
from pit_keras.runs.trained_model import TrainedModel

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "pit_s", "A PiT of create_model that timm has as NAME_224.")
flags.DEFINE_list("batches", ["1", "16"], "Images of a call.")
flags.DEFINE_integer("rounds", 9, "Turns of each side.", lower_bound=3)
flags.DEFINE_integer("calls", 5, "Timed calls of a turn, after one that is not.", lower_bound=1)
flags.DEFINE_string("output", "results/export_speed.csv", "The CSV to write.")


def main(_):
    torch.set_num_threads(THREADS)
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    theirs = timm.create_model(f"{FLAGS.model}_224").eval()
    ours = pit_keras.create_model(FLAGS.model)
    pit_keras.load_pytorch_weights(ours, theirs.state_dict())
    trained = TrainedModel(ours, pit_keras.imagenet.class_names(), DataConfig())
    calibration = take_sample(real_images() * 4, trained.data, "pieces")
    rows = []
    for batch in map(int, FLAGS.batches):
        with tempfile.TemporaryDirectory() as folder:
            files = write_all(Job(trained, calibration, batch), pathlib.Path(folder))
            rows += compare(
                batch, {"timm, eager": torch_call(theirs, batch), **calls(files, batch)}
            )
    write_rows(rows, pathlib.Path(FLAGS.output))


def write_all(job, folder):
    paths = {}
    for name, format_ in FORMATS.items():
        paths[name] = folder / format_.target
        FAMILIES[format_.family].write(job, format_.kind, paths[name])
    return paths


def calls(paths, batch):
    """By name, functions without arguments that run a file once and wait for its result."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)
    found = {}
    for name, path in paths.items():
        if FORMATS[name].family == "tflite":
            found[f"LiteRT, {FORMATS[name].kind}"] = litert_call(path, pixels)
    found["SavedModel, float32"] = saved_model_call(paths["saved_model"], pixels)
    found["SavedModel, bfloat16"] = saved_model_call(paths["saved_model_bfloat16"], pixels)
    found["ONNX Runtime"] = onnx_call(paths["onnx"], pixels)
    for precision in ("f32", "bf16"):
        found[f"OpenVINO, {precision}"] = openvino_call(paths["onnx"], pixels, precision)
    return found


def torch_call(model, batch):
    images = torch.randn(batch, 3, 224, 224)

    def call():
        with torch.inference_mode():
            return model(images).numpy()

    return call


def litert_call(path, pixels):
    run = Interpreter(model_path=str(path), num_threads=THREADS).get_signature_runner()
    return lambda: run(images=pixels)


def saved_model_call(path, pixels):
    loaded, images = tf.saved_model.load(str(path / "1")), tf.constant(pixels)
    serve = loaded.signatures["serving_default"]
    return lambda: (loaded, serve(images=images)["logits"].numpy())


def onnx_call(path, pixels):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    # Threads that wait by spinning would slow down whoever comes next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options)
    return lambda: session.run(["logits"], {"images": pixels})


def openvino_call(path, pixels, precision):
    settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": precision}
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda: model({"images": pixels})["logits"]


def compare(batch, sides):
    """Times all in turn; returns a row for each with its median and timm's time over it."""
    times = {name: [] for name in sides}
    for _ in range(FLAGS.rounds):
        for name, call in sides.items():
            call()
            for _ in range(FLAGS.calls):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    medians = {name: 1000 * statistics.median(seconds) for name, seconds in times.items()}
    rows = [
        {
            "model": FLAGS.model,
            "batch": batch,
            "runtime": name,
            "ms": round(median, 1),
            "speed_over_timm": round(medians["timm, eager"] / median, 2),
        }
        for name, median in medians.items()
    ]
    for row in rows:
        print(*(f"{key}={value}" for key, value in row.items()), sep="  ", flush=True)
    return rows


if __name__ == "__main__":
    app.run(main)
