"""What the training loop costs beside its steps: time over bare steps, saving, memory over time.

    pip install -e .[train]
    python benchmarks/training_loop.py --output=results/training_loop.csv

`loop_over_bare`: the trainer's epochs over the same number of the same compiled steps on batches
of the same pipeline, called in a bare loop that reads nothing but the last loss; they take turns in
one process, and the figure is the median of the turns' ratios. `save_s` is the median time of
saving everything, and `save_share` its share of ten minutes, the default interval.
`growth_kib_per_step` is the slope of the resident memory over the last three quarters of a run of
a tiny model, by least squares, with its standard error.
"""

import pathlib
import re
import statistics
import tempfile
import threading
import time

import numpy as np
from absl import app, flags
from csv_rows import write_rows

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "pit_ti", "Model of the first two measurements.")
flags.DEFINE_integer("image_size", 224, "Side of their images in pixels.", lower_bound=32)
flags.DEFINE_integer("batch_size", 8, "Images of their steps.", lower_bound=1)
flags.DEFINE_integer("rounds", 7, "Turns.", lower_bound=1)
flags.DEFINE_integer("steps", 10, "Steps of a turn.", lower_bound=1)
flags.DEFINE_integer("memory_steps", 2000, "Steps of the tiny model.", lower_bound=100)
flags.DEFINE_integer("memory_batch_size", 8, "Images of those steps.", lower_bound=1)
flags.DEFINE_string("output", "results/training_loop.csv", "The CSV to write.")


def main(_):
    with tempfile.TemporaryDirectory() as folder:
        row = {
            "model": FLAGS.model,
            "image_size": FLAGS.image_size,
            "batch_size": FLAGS.batch_size,
            **loop(pathlib.Path(folder) / "loop"),
            "memory_steps": FLAGS.memory_steps,
            "memory_batch_size": FLAGS.memory_batch_size,
            **memory(pathlib.Path(folder) / "memory"),
        }
    print(*(f"{key}={value}" for key, value in row.items()), sep="  ", flush=True)
    write_rows([row], pathlib.Path(FLAGS.output))


def timed_trainer(config, source, folder):
    """A trainer that follows each epoch with as many bare steps and a save, and times the three."""
    import tensorflow as tf

    from pit_keras.training.trainer import Trainer

    class TimedTrainer(Trainer):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.ratios, self.saves = [], []

        def _train_epoch(self, batches):
            is_traced = self.state.progress.epoch > 0
            looped = seconds_of(lambda: super(TimedTrainer, self)._train_epoch(batches))
            bare = seconds_of(lambda: self._bare_steps(batches))
            self.saves.append(seconds_of(self._save))
            if is_traced:
                self.ratios.append(looped / bare)

        def _bare_steps(self, batches):
            number, nothing = tf.constant(0, tf.int64), tf.zeros(2)
            for _ in range(self.steps):
                batch = next(batches)
                metrics = self._step(batch, number, nothing)
            float(metrics["loss"])

    return TimedTrainer(config, source, folder, verbose=False)


def seconds_of(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def loop(folder):
    import dataclasses

    import tensorflow as tf

    from pit_keras.config.recipes import recipe
    from pit_keras.data.labelled_images import open_source

    config = recipe("cutmix", FLAGS.model)
    config.data.dataset = "digits"
    config.data.image_size = (FLAGS.image_size, FLAGS.image_size)
    config.training.batch_size, config.training.epochs = FLAGS.batch_size, FLAGS.rounds + 1
    config.optimizer.warmup_epochs = 1
    whole = open_source("digits")
    counts = {"train": FLAGS.batch_size * FLAGS.steps, "val": FLAGS.batch_size}
    source = dataclasses.replace(
        whole,
        images={split: whole.images[split][:count] for split, count in counts.items()},
        labels={split: whole.labels[split][:count] for split, count in counts.items()},
    )
    trainer = timed_trainer(config, source, folder)
    trainer.run()
    save = statistics.median(trainer.saves)
    return {
        "device": tf.config.list_logical_devices()[-1].device_type,
        "loop_over_bare": round(statistics.median(trainer.ratios), 4),
        "save_s": round(save, 3),
        "save_share": round(save / 600, 5),
    }


def memory(folder):
    from pit_keras.config.recipes import recipe
    from pit_keras.data.labelled_images import open_source
    from pit_keras.training.trainer import Trainer

    config = recipe("cutmix", "pit_ti")
    config.model.patch_size = config.model.stride = config.model.head_dim = 4
    config.model.depths = (1, 1, 1)
    config.data.dataset, config.data.image_size = "digits", (16, 16)
    config.training.batch_size, config.training.jit = FLAGS.memory_batch_size, "off"
    source = open_source("digits")
    steps = source.sizes["train"] // FLAGS.memory_batch_size
    config.training.epochs = max(-(-FLAGS.memory_steps // steps), 6)  # the warm-up has five
    config.training.ema_decay = 0.99
    trainer = Trainer(config, source, folder, verbose=False)
    samples, done = [], threading.Event()

    def watch():
        while not done.wait(0.2):
            samples.append((len(samples), resident_bytes()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    trainer.run()
    done.set()
    watcher.join()
    late = np.array(samples[len(samples) // 4 :], float)
    per_sample = config.training.epochs * trainer.steps / len(samples)
    (slope, _), covariance = np.polyfit(late[:, 0], late[:, 1] / 1024, 1, cov=True)
    return {
        "growth_kib_per_step": round(slope / per_sample, 3),
        "standard_error": round(float(np.sqrt(covariance[0, 0])) / per_sample, 3),
        "resident_mib": round(late[-1, 1] / 2**20),
    }


def resident_bytes():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


if __name__ == "__main__":
    app.run(main)
