"""What FGSM costs beside a plain evaluation, and how busy an evaluation keeps the device.

    pip install -e .[train]
    python benchmarks/evaluation_speed.py

`fgsm_over_plain`: time of a batch under FGSM over that of the batch as it is, medians of turns.
`busy_share`: share of the time of an evaluation, on digits held in memory, in which the compiled
model runs, from the end of the first batch to the end of the last.
"""

import dataclasses
import gc
import time

from command import new_model, parse, write_rows


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"models": ("pit_ti",), "image_size": 32, "batch_size": 2, "repeats": 1, "images": 4},
        models=("pit_ti", "pit_s"),
        image_size=224,
        batch_size=8,
        repeats=9,
        images=160,
        output="results/evaluation_speed.csv",
    )
    write_rows([measured(name, options) for name in options.models], options.output)


def measured(name, options):
    import tensorflow as tf

    from pit_keras.config.fields import DataConfig
    from pit_keras.data.labelled_images import open_source
    from pit_keras.runs.trained_model import TrainedModel

    source = open_source("digits")
    data = DataConfig(image_size=(options.image_size, options.image_size))
    trained = TrainedModel(new_model(name, options, classes=10), source.class_names, data)
    return {
        "model": name,
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "device": tf.config.list_logical_devices()[-1].device_type,
        **fgsm_over_plain(trained, options),
        **busy(trained, source, options),
    }


def fgsm_over_plain(trained, options):
    import tensorflow as tf

    from pit_keras.evaluation.classification import Evaluator
    from pit_keras.evaluation.fgsm import fgsm_columns, fgsm_counts
    from pit_keras.measure.measuring import medians_in_turn

    shape = (options.batch_size, *trained.data.image_size, 3)
    batch = {
        "image": tf.random.stateless_normal(shape, (0, 0)),
        "label": tf.range(options.batch_size, dtype=tf.int64) % 10,
        "weight": tf.ones(options.batch_size),
    }
    plain = Evaluator(trained.model)
    attacked = Evaluator(trained.model, counts=fgsm_counts(fgsm_columns(), trained.data))
    calls = [lambda: plain([batch]), lambda: attacked([batch])]
    plain_s, fgsm_s = medians_in_turn(calls, options.repeats)
    return {
        "plain_ms": round(1000 * plain_s, 1),
        "fgsm_ms": round(1000 * fgsm_s, 1),
        "fgsm_over_plain": round(fgsm_s / plain_s, 2),
    }


def busy(trained, source, options):
    from pit_keras.data.pipeline import evaluation_batches
    from pit_keras.evaluation.classification import Evaluator

    evaluator, spans = Evaluator(trained.model), []
    compiled = evaluator._counts

    def timed(batch):
        start = time.perf_counter()
        sums, each_image = compiled(batch)
        sums = {name: float(value) for name, value in sums.items()}  # waits for the device
        spans.append((start, time.perf_counter()))
        return sums, each_image

    evaluator._counts = timed
    part = dataclasses.replace(
        source,
        images={**source.images, "val": source.images["train"][: options.images]},
        labels={**source.labels, "val": source.labels["train"][: options.images]},
    )
    gc.collect()  # of the comparison's graphs, which may take seconds
    evaluator(evaluation_batches(part, "val", trained.data, batch_size=options.batch_size))
    (_, first_end), *others = spans
    seconds = others[-1][1] - first_end
    return {
        "busy_share": round(sum(end - start for start, end in others) / seconds, 3),
        "images_per_second": round(options.batch_size * len(others) / seconds, 1),
    }


if __name__ == "__main__":
    main()
