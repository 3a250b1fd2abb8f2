"""Exported PiT-S against timm's PyTorch model: LiteRT, SavedModel, ONNX Runtime and OpenVINO.

    pip install -e '.[train,export,onnx]' torch timm openvino
    python benchmarks/export_speed.py

All run in one process with two threads, in turn, with the same random weights. PyTorch gets
normalised images, the others pixels, which they normalise. The CSV has median times, and timm's
over each: higher is better. What is not installed is left out.
"""

import pathlib
import statistics
import tempfile
import time

from command import parse, write_rows
from timm_model import THREADS, has, pair, torch_call, use_two_threads

from pit_keras.export.formats import FORMATS

TIMM = "timm, eager"


def main(arguments=None):
    few = {"formats": ("saved_model", "tflite_int8", "onnx")}
    options = parse(
        __doc__,
        arguments,
        small={**few, "image_size": 32, "batches": (1,), "rounds": 1, "calls": 1},
        model="pit_s",
        image_size=224,
        batches=(1, 16),
        rounds=9,
        calls=5,
        formats=tuple(FORMATS),
        output="results/export_speed.csv",
    )
    if not options.small:
        use_two_threads()
    ours, theirs = pair(options)
    rows = []
    for batch in options.batches:
        with tempfile.TemporaryDirectory() as folder:
            pixels, calls = exported(ours, options, batch, folder, options.formats)
            eager = {TIMM: torch_call(theirs, pixels.astype("float32"))} if theirs else {}
            rows += compare(batch, eager | calls, options)
    write_rows(rows, options.output)


def exported(model, options, batch, folder, formats):
    """Writes forms of a model; random pixels, and functions {name: runs a form on them}."""
    import numpy as np

    import pit_keras
    from pit_keras.config.fields import DataConfig
    from pit_keras.export.agreement import real_images, take_sample
    from pit_keras.export.families import Job
    from pit_keras.runs.trained_model import TrainedModel

    size = (options.image_size, options.image_size)
    trained = TrainedModel(model, pit_keras.imagenet.class_names(), DataConfig(image_size=size))
    job = Job(trained, take_sample(real_images() * 4, trained.data, "pieces"), batch)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
    return pixels, exported_calls(job, pathlib.Path(folder), pixels, formats)


def exported_calls(job, folder, pixels, formats):
    """Writes some forms; {name: function that runs it once}."""
    from pit_keras.export.families import FAMILIES

    found = {}
    for format_ in map(FORMATS.get, formats):
        path, (name, call_of) = folder / format_.target, RUNTIMES[format_.family]
        FAMILIES[format_.family].write(job, format_.kind, path)
        found[name.format(format_.kind)] = call_of(path, pixels)
    if has("openvino") and "onnx" in formats:
        for precision in ("f32", "bf16"):
            onnx = folder / FORMATS["onnx"].target
            found[f"OpenVINO, {precision}"] = openvino_call(onnx, pixels, precision)
    return found


def litert_call(path, pixels):
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_path=str(path), num_threads=THREADS).get_signature_runner()
    return lambda: run(images=pixels)


def saved_model_call(path, pixels):
    import tensorflow as tf

    loaded, images = tf.saved_model.load(str(path)), tf.constant(pixels)
    serve = loaded.signatures["serving_default"]
    return lambda: (loaded, serve(images=images)["logits"].numpy())  # keeps `loaded` alive


def onnx_call(path, pixels):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    # Threads that wait by spinning would slow down the next runtime.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options)
    return lambda: session.run(["logits"], {"images": pixels})


def openvino_call(path, pixels, precision):
    import openvino

    settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": precision}
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda: model({"images": pixels})["logits"]


RUNTIMES = {  # by the family of a format
    "saved_model": ("SavedModel, {}", saved_model_call),
    "tflite": ("LiteRT, {}", litert_call),
    "onnx": ("ONNX Runtime", onnx_call),
}


def compare(batch, sides, options):
    """A row for each side; a turn is one call untimed and some timed."""
    times = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, call in sides.items():
            call()
            for _ in range(options.calls):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    medians = {name: 1000 * statistics.median(seconds) for name, seconds in times.items()}
    return [
        {
            "model": options.model,
            "batch": batch,
            "runtime": name,
            "ms": round(median, 1),
            "speed_over_timm": round(medians[TIMM] / median, 2) if TIMM in medians else "",
        }
        for name, median in medians.items()
    ]


if __name__ == "__main__":
    main()
