"""What a run shows while it trains: a bar or lines, `log.jsonl`, TensorBoard, a profile.

The trainer talks to `Monitor`; the other classes are its parts.
"""

import contextlib
import datetime
import json
import math
import os
import sys
import time

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pit_keras.runs.metric_names import in_words, number

EXAMPLE_IMAGES = 8


class Monitor:
    """Shows, logs and measures a run.

    Args:
        steps: Updates per epoch.
        is_chief: Whether to write files.
    """

    def __init__(self, config, folder, figures, steps, *, verbose, is_chief, profile=None):
        self._config, self._steps = config, steps
        self._images = config.training.images_of_update
        self.display = EpochDisplay(config.training.epochs, figures, verbose)
        self._log = RunLog(folder.log, folder.logs) if is_chief else None
        self.profile = Profile(folder.logs, profile if is_chief else None)
        self.epoch, self._lately, self._started = None, None, time.perf_counter()

    @contextlib.contextmanager
    def watching(self):
        """The context of a run; at its end it closes what is open."""
        try:
            with self.display.shown():
                yield self
        finally:
            self.profile.stop()
            if self._log:
                self._log.close()

    def event(self, kind, **values):
        """Adds a line to `log.jsonl`."""
        if self._log:
            self._log.event(kind, **values)

    def begin_epoch(self, progress):
        """Begins an epoch, or resumes it where `progress` is."""
        self.epoch = Meter(progress.sums, progress.step)
        self._lately, self._started = Meter(), time.perf_counter()
        what = f"Epoch {progress.epoch + 1}/{self._config.training.epochs}"
        self.display.begin(what, self._steps, progress.step)

    def after_step(self, number, metrics, waited, learning_rate):
        """Notes a step's metrics, {name: number}; returns their sums over the epoch.

        Args:
            waited: Seconds without data.
            learning_rate: A function, which is called only where the rate is shown.
        """
        self.profile.after(number)
        self.epoch.add(metrics, waited)
        self._lately.add(metrics, waited)
        if self.display.is_drawn:
            rates = self.epoch.rates(self._images)
            self.display.step(
                self.epoch.steps, self.epoch.means(), learning_rate(), rates["images_per_second"]
            )
        if self._log and (number + 1) % self._config.training.log_every_steps == 0:
            values = {**self._lately.means(), "learning_rate": learning_rate()}
            values |= self._lately.rates(self._images)
            self._log.event("step", epoch=number // self._steps, step=number + 1, **values)
            self._log.scalars("train", values, number + 1)
            self._lately = Meter()
        return self.epoch.sums

    def end_epoch(self, row, step):
        """Ends an epoch with its row of the history, after `step` updates of the run."""
        seconds = time.perf_counter() - self._started
        rates = self.epoch.rates(self._images)
        self.display.epoch(row, rates, seconds)
        if self._log:
            self._log.event("epoch", step=step, seconds=round(seconds, 3), **row, **rates)
            validation = {k.removeprefix("val_"): v for k, v in row.items() if k[:4] == "val_"}
            epoch = {k: v for k, v in row.items() if k != "epoch" and k[:4] != "val_"}
            self._log.scalars("epoch", epoch | rates, step)
            self._log.scalars("validation", validation, step)
            self._log.flush()

    def show_images(self, images, step):
        """Shows normalised training images, (B, H, W, 3), in TensorBoard."""
        if self._log:
            data = self._config.data
            pixels = images[:EXAMPLE_IMAGES] * np.float32(data.std) + np.float32(data.mean)
            self._log.images(np.clip(pixels, 0, 1), step)


class RunLog:
    """Events of a run: lines of JSON for machines, points for TensorBoard.

    Lines are only added, so a resumed run has the repeated steps twice.
    """

    def __init__(self, path, logs):
        self._path, self._logs = path, logs  # log.jsonl, TensorBoard's folder
        self._writer = tf.summary.create_file_writer(str(logs))

    def event(self, kind, **values):
        """Adds a line: the time, the kind of event, and the values; null for a non-finite value."""
        values = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        line = json.dumps({"time": now, "event": kind, **values}) + "\n"
        with self._path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a killed process was writing the last line
                    line = "\n" + line
            file.write(line.encode())

    def scalars(self, prefix, values, step):
        """Adds points to TensorBoard's curves `prefix/name`; none for None."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(f"{prefix}/{name}", value)

    def images(self, images, step):
        with self._writer.as_default(step=step):
            tf.summary.image("training images", images, max_outputs=EXAMPLE_IMAGES)

    def flush(self):
        """Writes TensorBoard's points to the disk."""
        try:
            self._writer.flush()
        except tf.errors.OpError as error:
            reason = str(error.message).splitlines()[0]
            raise OSError(f"{self._logs} cannot be written ({reason}).") from error

    def close(self):
        with contextlib.suppress(tf.errors.OpError):  # `flush` has reported it
            self._writer.close()


class Meter:
    """The sums of some steps' metrics, {name: sum}, their speed, and their wait for data."""

    def __init__(self, sums=(), steps=0):
        self.sums, self.steps = dict(sums), steps
        self.waited, self._measured = 0.0, 0
        self._start = self._last = time.perf_counter()

    def add(self, metrics, waited):
        """Adds one step's metrics, {name: number}, and the seconds it waited for data."""
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self._measured += 1
        self._last = time.perf_counter()
        self.waited += waited

    def means(self):
        """The metrics' means over the steps; a skipped update has no gradient norm to count."""
        means = {name: value / self.steps for name, value in self.sums.items()}
        skipped = self.sums.get("skipped_updates", 0)
        if "gradient_norm" in means and skipped:
            means["gradient_norm"] = self.sums["gradient_norm"] / max(self.steps - skipped, 1)
        return means

    def rates(self, images):
        """Images per second, at `images` per step, and the share of time without data."""
        seconds = max(self._last - self._start, 1e-9)
        return {
            "images_per_second": round(self._measured * images / seconds, 2),
            "data_wait": round(self.waited / seconds, 4),
        }


class EpochDisplay:
    """A bar in a terminal, a line per epoch in a log file, or nothing.

    Attributes:
        is_drawn: Whether there is a bar to be moved.
    """

    def __init__(self, epochs, figures, verbose=True):
        self._epochs, self._figures, self._verbose = epochs, figures, verbose
        self.is_drawn = verbose and sys.stdout.isatty()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[words]}"),
            TimeRemainingColumn(),
            console=Console(file=sys.stdout),
            transient=True,
            disable=not self.is_drawn,
        )
        self._task = None

    def shown(self):
        """A context in which the bar is drawn."""
        return self._bar

    def begin(self, what, total, done=0):
        """Starts the bar again: an epoch's training, or its evaluation."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=total, completed=done, words="")

    def step(self, done, means=None, learning_rate=None, images_per_second=None):
        """Moves the bar; with means it shows them."""
        fields = {}
        if means is not None:
            shown = in_words(self._figures.training, means, 3, "  ")
            fields["words"] = f"{shown}  lr {learning_rate:.1e}  {images_per_second:.0f} images/s"
        self._bar.update(self._task, completed=done, **fields)

    def epoch(self, row, rates, seconds):
        """Prints the line of a finished epoch."""
        if not self._verbose:
            return
        left = datetime.timedelta(seconds=round(seconds * (self._epochs - row["epoch"] - 1)))
        training = in_words(self._figures.training, row, 4, ", ")
        validation = in_words(self._figures.validation, row, 4, ", ", prefix="val_")
        averaged = f"val_averaged_{self._figures.best}"
        if averaged in row:
            validation += f", averaged {number(row[averaged])}"
        self._bar.console.print(
            f"Epoch {row['epoch'] + 1}/{self._epochs}: {training}; validation: {validation}; "
            f"{rates['images_per_second']:.0f} images/s, about {left} left",
            highlight=False,
            soft_wrap=True,
        )


class Profile:
    """TensorBoard's profiler over the run's steps (first, end), counted from 0, without `end`."""

    def __init__(self, logs, steps=None):
        self._logs, self._steps, self._is_on = logs, steps, False

    def before(self, step):
        if self._steps and not self._is_on and self._steps[0] <= step < self._steps[1]:
            tf.profiler.experimental.start(str(self._logs))
            self._is_on = True

    def after(self, step):
        if self._is_on and step + 1 >= self._steps[1]:
            self.stop()
            self._steps = None

    def stop(self):
        """Writes a profile that is being taken."""
        if self._is_on:
            tf.profiler.experimental.stop()
            self._is_on = False
            print(f"TensorBoard shows the profile in {self._logs} under Profile.")
