"""PiT-S here against timm's PyTorch model: inference, a training step with AdamW, and exports.

    pip install -e '.[train,export]' torch timm jax
    python benchmarks/compare.py

All in float32 with two threads. Each backend that is installed is a process of its own, in which
timm's model and the one here run in turn. The CSV has median times, and timm's over ours: higher is
better. `mib` is what a training step adds to the process at its peak, for TensorFlow.
"""

import multiprocessing
import os
import tempfile

from command import parse, write_rows
from timm_model import LEARNING_RATE, has, pair, torch_call, torch_training, use_two_threads

EXPORTED = {"saved_model": 16, "tflite": 1, "tflite_int8": 1}  # with their batches


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"image_size": 32, "repeats": 1, "batches": (1,), "train_batch_size": 1},
        model="pit_s",
        image_size=224,
        repeats=15,
        batches=(1, 16),
        train_batch_size=16,
        backends=("tensorflow", "torch", "jax"),
        output="results/compare.csv",
    )
    rows = []
    for backend in filter(has, options.backends):
        rows += measured(options) if options.small else in_process_of_its_own(backend, options)
        write_rows(rows, options.output)
        if options.small:
            break


def in_process_of_its_own(backend, options):
    os.environ["KERAS_BACKEND"] = backend
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (options,))


def measured(options):
    """The rows of the backend that Keras has."""
    if not options.small:
        use_two_threads()
    import keras
    import numpy as np

    from pit_keras.measure.machine import description
    from pit_keras.measure.measuring import inference_call

    ours, theirs = pair(options)
    shape = (options.image_size, options.image_size, 3)
    drawn, rows = np.random.default_rng(0), []
    for batch in options.batches:
        images = drawn.normal(size=(batch, *shape)).astype("float32")
        calls = inference_call(ours, images), theirs and torch_call(theirs, images)
        rows.append(compared("inference", batch, calls, options))
    if keras.backend.backend() == "tensorflow" and not options.small:
        rows += of_exports(ours, theirs, options)
    batch = options.train_batch_size
    images = drawn.normal(size=(batch, *shape)).astype("float32")
    labels = np.arange(batch) % 1000
    calls = our_training(ours, images, labels), theirs and torch_training(theirs, images, labels)
    mib = added_memory(calls[0]) if keras.backend.backend() == "tensorflow" else ""
    rows.append({**compared("training step", batch, calls, options), "mib": mib})
    where = description()
    return [{"backend": where["backend"], **row, "device": where["device"]} for row in rows]


def of_exports(ours, theirs, options):
    from export_speed import exported

    for name, batch in EXPORTED.items():
        with tempfile.TemporaryDirectory() as folder:
            pixels, calls = exported(ours, options, batch, folder, [name])
            eager = theirs and torch_call(theirs, pixels.astype("float32"))
            for runtime, call in calls.items():
                yield compared(runtime, batch, (call, eager), options)


def our_training(model, images, labels):
    import keras

    from pit_keras.measure.measuring import training_call

    return training_call(model, images, labels, keras.optimizers.AdamW(LEARNING_RATE))


def added_memory(step):
    """MiB of a training step at its peak."""
    from pit_keras.measure.machine import memory_in_use, peak_memory

    before = memory_in_use()
    return round((peak_memory(step) - before) / 2**20)


def compared(what, batch, calls, options):
    from pit_keras.measure.measuring import medians_in_turn

    ours, *theirs = medians_in_turn([call for call in calls if call], options.repeats)
    return {
        "model": options.model,
        "what": what,
        "batch": batch,
        "pit_keras_ms": round(1000 * ours, 1),
        "timm_ms": round(1000 * theirs[0], 1) if theirs else "",
        "speed_over_timm": round(theirs[0] / ours, 2) if theirs else "",
        "mib": "",
    }


if __name__ == "__main__":
    main()
