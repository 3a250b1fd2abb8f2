"""What FGSM costs beside a plain evaluation, and how busy an evaluation keeps the device.

    pip install -e .[train]
    python benchmarks/evaluation_speed.py --output=results/evaluation_speed.csv

`fgsm_over_plain` is the time of a batch under FGSM (the gradient and one attacked forward pass)
over that of the same batch as it is, medians of turns that the two take in one process;
`fgsm_over_plain_cpu` is the same of processor time, which other jobs disturb less. `busy_share` is
the share of the wall time of `evaluate_source`, on scans of digits held in memory and resized to
the model's size, in which the compiled function of the model runs; it is counted from the end of
the first batch, which traces and compiles (`first_batch_s`), to the end of the last; what comes
after it (`after_last_batch_s`) is now and then a second or two, however many images there are.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import gc
import pathlib
import statistics
import time

from absl import app, flags
from csv_rows import write_rows

FLAGS = flags.FLAGS
flags.DEFINE_list("models", ["pit_ti", "pit_s"], "Which models to measure.")
flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", lower_bound=32)
flags.DEFINE_integer("batch_size", 8, "Images at a time.", lower_bound=1)
flags.DEFINE_integer("rounds", 9, "Turns of the comparison.", lower_bound=1)
flags.DEFINE_integer("images", 160, "Images of the evaluation.", lower_bound=32)
flags.DEFINE_string("output", "results/evaluation_speed.csv", "The CSV to write.")


def main(_):
    rows = []
    for model in FLAGS.models:
        rows.append(measured(model))
        print(*(f"{key}={value}" for key, value in rows[-1].items()), sep="  ", flush=True)
    write_rows(rows, pathlib.Path(FLAGS.output))


def measured(name):
    import tensorflow as tf

    from pit_keras import create_model
    from pit_keras.config.fields import DataConfig
    from pit_keras.data.labelled_images import open_source
    from pit_keras.runs.trained_model import TrainedModel

    size = (FLAGS.image_size, FLAGS.image_size)
    source = open_source("digits")
    model = create_model(name, input_shape=(*size, 3), classes=10)
    trained = TrainedModel(model, source.class_names, DataConfig(image_size=size))
    return {
        "model": name,
        "image_size": FLAGS.image_size,
        "batch_size": FLAGS.batch_size,
        "device": tf.config.list_logical_devices()[-1].device_type,
        **fgsm_over_plain(trained),
        **busy(trained, source),
    }


def fgsm_over_plain(trained):
    import tensorflow as tf

    from pit_keras.evaluation.classification import Evaluator, standard_counts
    from pit_keras.evaluation.fgsm import fgsm_columns, fgsm_counts

    batch = {
        "image": tf.random.stateless_normal(
            (FLAGS.batch_size, *trained.data.image_size, 3), (0, 0)
        ),
        "label": tf.range(FLAGS.batch_size, dtype=tf.int64) % 10,
        "weight": tf.ones(FLAGS.batch_size),
    }
    evaluators = {
        "plain": Evaluator(trained.model, counts=standard_counts),
        "fgsm": Evaluator(trained.model, counts=fgsm_counts(fgsm_columns(), trained.data)),
    }
    times = {name: [] for name in evaluators}
    for _ in range(FLAGS.rounds + 1):
        for name, evaluator in evaluators.items():
            start = time.perf_counter(), time.process_time()
            evaluator([batch])
            times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    (plain, plain_cpu), (fgsm, fgsm_cpu) = (
        map(statistics.median, zip(*turns[1:], strict=True)) for turns in times.values()
    )
    return {
        "plain_ms": round(1000 * plain, 1),
        "fgsm_ms": round(1000 * fgsm, 1),
        "fgsm_over_plain": round(fgsm / plain, 2),
        "fgsm_over_plain_cpu": round(fgsm_cpu / plain_cpu, 2),
    }


def busy(trained, source):
    """How much of an evaluation's time the compiled function takes."""
    from pit_keras.evaluation import classification

    spans = []

    class TimedEvaluator(classification.Evaluator):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            compiled = self._counts

            def timed(batch):
                start = time.perf_counter()
                sums, each_image = compiled(batch)
                sums = {name: float(value) for name, value in sums.items()}  # waits for them
                spans.append((start, time.perf_counter()))
                return sums, each_image

            self._counts = timed

    part = dataclasses.replace(
        source,
        images={**source.images, "val": source.images["train"][: FLAGS.images]},
        labels={**source.labels, "val": source.labels["train"][: FLAGS.images]},
    )
    gc.collect()  # the graphs of the comparison, which may take seconds, are none of its business
    usual, classification.Evaluator = classification.Evaluator, TimedEvaluator
    try:
        classification.evaluate_source(trained, part, batch_size=FLAGS.batch_size, progress=False)
    finally:
        classification.Evaluator = usual
    returned = time.perf_counter()
    (start, first_end), *others = spans
    end = others[-1][1]
    return {
        "first_batch_s": round(first_end - start, 1),
        "busy_share": round(sum(b - a for a, b in others) / (end - first_end), 3),
        "images_per_second": round(FLAGS.batch_size * len(others) / (end - first_end), 1),
        "after_last_batch_s": round(returned - end, 1),
    }


if __name__ == "__main__":
    app.run(main)
