"""Time and memory of a training step: precisions, XLA, recomputed blocks, accumulated batches.

    pip install -e .[train]
    python benchmarks/training_step.py

Each row is a process of its own, on the CPU or whatever TensorFlow finds. A step is forward pass,
gradient and AdamP's update on one batch: `step_ms` is a median, `first_step_s` has tracing and
compilation in it, `ratio` is over the model's first row. `step_mib` is the peak of the device's
memory over what it held with model and optimizer built.
"""

import multiprocessing
import time

from command import new_model, parse, write_rows

SETTINGS = ("precision", "xla", "recompute_blocks", "accumulate")
PLAIN = [("float32", False, False, 1), ("float32", True, False, 1)]
OTHERS = [("mixed_bfloat16", False, 1), ("mixed_float16", False, 1), ("float32", True, 1)]
OTHERS += [("float32", False, 2)]
TRANSFORMER = PLAIN + [(name, xla, *rest) for name, *rest in OTHERS for xla in (False, True)]


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"image_size": 32, "batch_size": 2, "repeats": 1, "models": ("pit_ti",)},
        image_size=224,
        batch_size=8,
        repeats=7,
        models=("pit_s", "resnet50"),
        output="results/training_step.csv",
    )
    rows = []
    for name in options.models:
        kinds, first = TRANSFORMER if name.startswith(("pit", "vit")) else PLAIN, None
        for kind in kinds[:1] if options.small else kinds:
            found = (measured if options.small else in_fresh_process)(name, options, *kind)
            first = first or found["step_ms"]
            rows.append(
                {
                    "model": name,
                    "image_size": options.image_size,
                    "images_of_update": options.batch_size,
                    **dict(zip(SETTINGS, kind, strict=True)),
                    **found,
                    "ratio": round(found["step_ms"] / first, 2),
                }
            )
            write_rows(rows, options.output)


def in_fresh_process(*arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, arguments)


def measured(name, options, precision, jit, recompute, accumulate):
    import keras

    from pit_keras.measure.machine import memory_in_use, peak_memory
    from pit_keras.measure.measuring import medians_in_turn

    keras.config.set_dtype_policy(precision)
    step = training_step(name, options, precision, jit, recompute, accumulate)
    before, start = memory_in_use(), time.perf_counter()
    step()
    first, peak = time.perf_counter() - start, peak_memory(step)
    (median,) = medians_in_turn([step], options.repeats)
    return {
        "first_step_s": round(first, 1),
        "step_ms": round(1000 * median, 1),
        "step_mib": round((peak - before) / 2**20),
    }


def training_step(name, options, precision, jit, recompute, accumulate):
    """A function that takes a step and waits for it."""
    import tensorflow as tf

    from pit_keras.config.recipes import recipe
    from pit_keras.training.assembly import optimizer_of
    from pit_keras.training.classification_task import ClassificationLoss
    from pit_keras.training.step import compiled_step

    config = recipe("vanilla", name)
    config.training.batch_size = options.batch_size // accumulate
    config.training.accumulate, config.training.precision = accumulate, precision
    config.training.recompute_blocks = recompute
    model = new_model(name, options, drop_path_rate=0.1)
    optimizer, loss = optimizer_of(config, model, steps=1000), ClassificationLoss(config, model)
    step = compiled_step(config, model, loss, optimizer, tf.distribute.get_strategy(), jit=jit)
    batch = {
        "image": tf.random.stateless_normal((options.batch_size, *model.input_shape[1:]), (0, 0)),
        "label": tf.one_hot(tf.range(options.batch_size), 1000),
    }
    return lambda: float(step(batch, tf.constant(0, tf.int64), tf.zeros(2))["loss"])


if __name__ == "__main__":
    main()
