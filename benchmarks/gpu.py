"""Speed and memory on a GPU, for five minutes: PiT and ViT here on each backend, and timm's.

    pip install -e . torch timm jax[cuda12]
    python benchmarks/gpu.py

Each backend that is installed is a process of its own. First it measures what the device can do at
most, a large matrix product and a copy; then inference and AdamW's training step, the most
important first. A row is in the CSV as soon as it is known; what does not fit into `minutes` is
left out. On PyTorch timm's model runs in turn with the one here, eagerly and, where `compiled`
names it, by `torch.compile`. Without a GPU it measures the processor, and says so in `device`.
"""

import contextlib
import itertools
import multiprocessing
import os
import time

from command import new_model, parse, write_rows
from timm_model import LEARNING_RATE, has, torch_call, torch_training

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
TIMM_NAMES = {"vit_s": "deit_small_patch16_224"}


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"models": ("pit_ti",), "image_size": 32, "batches": (1,), "train_batch_size": 2}
        | {"repeats": 1, "side": 64, "precisions": ("float32",)},
        models=("pit_s", "vit_s", "pit_ti", "pit_xs", "pit_b"),
        compiled=("pit_s",),
        precisions=("bfloat16", "float32"),
        image_size=224,
        batches=(1, 16, 128),
        train_batch_size=128,
        repeats=10,
        side=8192,
        minutes=5.0,
        backends=("torch", "jax", "tensorflow"),
        output="results/gpu.csv",
    )
    backends = [name for name in options.backends if has(name)]
    seconds, rows = 60 * options.minutes / len(backends), []
    if options.small:
        return write_rows(list(measured(options, time.monotonic() + seconds)), options.output)
    spawn = multiprocessing.get_context("spawn")
    for backend in backends:
        os.environ["KERAS_BACKEND"] = backend
        receiver, sender = spawn.Pipe(duplex=False)
        process = spawn.Process(target=send_rows, args=(options, seconds, sender))
        process.start()
        sender.close()
        with contextlib.suppress(EOFError):
            while True:
                rows.append(receiver.recv())
                write_rows(rows, options.output)
        process.join()
    return None


def send_rows(options, seconds, connection):
    for row in measured(options, time.monotonic() + seconds):
        connection.send(row)


def measured(options, deadline):
    """The rows of the backend that Keras has, until a time of the clock."""
    import keras

    from pit_keras.measure.machine import description

    about = description()
    about = {name: about[name] for name in ("backend", "device", "versions")}
    for row in ceilings(options):
        yield about | row_of(**row)
    work = [("inference", batch) for batch in options.batches]
    work.append(("training step", options.train_batch_size))
    for name, precision in itertools.product(options.models, options.precisions):
        keras.config.set_dtype_policy(POLICIES[precision])
        model = new_model(name, options)
        for what, batch in work:
            if time.monotonic() > deadline:
                return
            sides = {"pit_keras": our_call(model, what, batch, options)}
            sides |= timm_calls(name, precision, what, batch, options)
            for row in in_turn(sides, batch, options.repeats):
                yield about | row_of(model=name, what=what, precision=precision, batch=batch, **row)
        del model
        keras.backend.clear_session()


def row_of(**known):
    columns = ("what", "model", "of", "precision", "batch", "ms", "per_second", "unit", "peak_mib")
    return {column: known.get(column, "") for column in columns}


def ceilings(options):
    """What the device reaches at most: a product of square matrices, and a copy of one."""
    from keras import ops

    from pit_keras.measure.measuring import medians_in_turn

    side = options.side
    for precision in options.precisions:
        matrix = ops.ones((side, side), precision)
        size = side**2 * (2 if precision == "bfloat16" else 4)
        calls = {
            "matrix product": (lambda x=matrix: ops.matmul(x, x), 2e-12 * side**3, "TFLOP"),
            "copy": (lambda x=matrix: x + 1, 2e-9 * size, "GB"),  # read and written
        }
        for what, (call, work, unit) in calls.items():
            done = [lambda call=call: float(call()[0, 0])]  # waits for the device
            (seconds,) = medians_in_turn(done, options.repeats)
            ms, rate = round(1000 * seconds, 3), float(f"{work / seconds:.3g}")
            yield {"what": what, "precision": precision, "ms": ms, "per_second": rate, "unit": unit}


def our_call(model, what, batch, options):
    import keras

    from pit_keras.measure.measuring import inference_call, training_call

    images, labels = batch_of(batch, options)
    if what == "inference":
        return inference_call(model, images)
    return training_call(model, images, labels, keras.optimizers.AdamW(LEARNING_RATE))


def timm_calls(name, precision, what, batch, options):
    """timm's model on the PyTorch backend: as it is, and compiled where that is asked for."""
    import keras

    if keras.backend.backend() != "torch" or not has("timm") or options.small:
        return {}
    import timm
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = timm.create_model(TIMM_NAMES.get(name, f"{name}_224"), img_size=options.image_size)
    sides = {"timm, eager": network.to(device)}
    if name in options.compiled:
        sides["timm, torch.compile"] = torch.compile(network)
    cast = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")
    images, labels = batch_of(batch, options)
    if what == "inference":
        return {side: torch_call(each, images, cast) for side, each in sides.items()}
    return {side: torch_training(each, images, labels, cast) for side, each in sides.items()}


def batch_of(batch, options):
    import numpy as np

    shape = (batch, options.image_size, options.image_size, 3)
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    return images, np.arange(batch) % 1000


def in_turn(sides, batch, repeats):
    """A row for each side, with its memory; one that fails, for want of memory say, has none."""
    from pit_keras.measure.machine import peak_memory
    from pit_keras.measure.measuring import medians_in_turn

    peaks = {}
    for name, call in list(sides.items()):
        try:
            peaks[name] = round(peak_memory(call) / 2**20)
        except Exception as error:  # of whatever kind the backend has for it
            print(f"{name}: {type(error).__name__}: {error}")
    seconds = medians_in_turn([sides[name] for name in peaks], repeats)
    for (name, peak), each in zip(peaks.items(), seconds, strict=True):
        rate = round(batch / each, 1)
        ms = round(1000 * each, 2)
        yield {"of": name, "ms": ms, "per_second": rate, "unit": "images", "peak_mib": peak}


if __name__ == "__main__":
    main()
