"""What a run shows while it trains: a bar or lines, `log.jsonl`, TensorBoard, a profile."""

import contextlib
import datetime
import json
import math
import os
import sys
import time

import numpy as np
import tensorflow as tf
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pit_keras.runs.metric_names import in_words, number
from pit_keras.waits import Terminal

EXAMPLE_IMAGES = 8


class Monitor:
    """Shows, logs and measures a run of so many `steps` an epoch; only the chief writes files."""

    def __init__(self, config, folder, figures, steps, *, verbose, is_chief, profile=None):
        self._config, self._figures, self._steps = config, figures, steps
        self._images = config.training.images_of_update
        self._has_compiled = {"step": False, "evaluation": False}
        self.display = EpochDisplay(config.training.epochs, figures, verbose)
        self.log = RunLog(folder, is_chief)
        self.profile = Profile(folder.logs, profile if is_chief else None)

    @contextlib.contextmanager
    def watching(self):
        """The context of a run; at its end it closes what is open."""
        try:
            with self.display.bar:
                yield
        finally:
            self.profile.stop()
            self.log.close()

    def begin_epoch(self, progress):
        """Begins an epoch, or resumes it where `progress` is."""
        self.epoch, self._lately = Meter(progress.sums, progress.step), Meter()
        self._started, self._compiled_evaluation_for = time.perf_counter(), 0.0
        self._what = f"Epoch {progress.epoch + 1}/{self._config.training.epochs}"
        if self._has_compiled["step"]:
            self.display.begin(self._what, self._steps, progress.step)
        else:
            self.display.wait("Compiling the training step")

    def after_step(self, number, metrics, waited, learning_rate):
        """Notes a step's metrics, {name: number}; returns their sums over the epoch.

        The step `waited` so many seconds for data. `learning_rate` is a function, called only where
        the rate is shown.
        """
        self.profile.after(number)
        self.epoch.add(metrics, waited)
        self._lately.add(metrics, waited)
        if not self._has_compiled["step"]:
            self._has_compiled["step"] = True
            self.epoch.restart()
            self._lately.restart()
            self.display.begin(self._what, self._steps, self.epoch.steps)
        if not self.display.bar.disable:
            speed = self.epoch.rates(self._images)["images_per_second"]
            words = in_words(self._figures.training, self.epoch.means(), 3, "  ")
            words += f"  lr {learning_rate():.1e}"
            words += "" if speed is None else f"  {speed:.0f} images/s"
            self.display.step(self.epoch.steps, words)
        if (number + 1) % self._config.training.log_every_steps == 0:
            values = {**self._lately.means(), "learning_rate": learning_rate()}
            values |= self._lately.rates(self._images)
            self.log.event("step", epoch=number // self._steps + 1, step=number + 1, **values)
            self.log.scalars("train", values, number + 1)
            self._lately = Meter()
        return self.epoch.sums

    def begin_evaluation(self, batches):
        """Begins an evaluation; the function that it returns is called with the batches done."""
        start = time.perf_counter()
        if self._has_compiled["evaluation"]:
            self.display.begin("Evaluating", batches)
        else:
            self.display.wait("Compiling the evaluation")

        def after_batch(done):
            if not self._has_compiled["evaluation"]:
                self._has_compiled["evaluation"] = True
                self._compiled_evaluation_for = time.perf_counter() - start
                self.display.begin("Evaluating", batches, done)
            self.display.step(done)

        return after_batch

    def end_epoch(self, row, step):
        """Ends an epoch with its row of the history, after `step` updates of the run."""
        now, rates = time.perf_counter(), self.epoch.rates(self._images)
        seconds, training = now - self._started, self.epoch.seconds_of(self._steps)
        if training is not None:
            training += now - self.epoch.last - self._compiled_evaluation_for
        self.display.epoch(row, rates, training)
        self.log.event("epoch", step=step, seconds=round(seconds, 3), **row, **rates)
        validation = {k.removeprefix("val_"): v for k, v in row.items() if k[:4] == "val_"}
        epoch = {k: v for k, v in row.items() if k != "epoch" and k[:4] != "val_"}
        self.log.scalars("epoch", epoch | rates, step)
        self.log.scalars("validation", validation, step)
        self.log.flush()

    def show_images(self, images, step):
        """Shows normalised training images, (B, H, W, 3), in TensorBoard."""
        data = self._config.data
        pixels = images[:EXAMPLE_IMAGES] * np.float32(data.std) + np.float32(data.mean)
        with self.log.writer.as_default(step=step):
            tf.summary.image("training images", np.clip(pixels, 0, 1), max_outputs=EXAMPLE_IMAGES)


class RunLog:
    """Events of a run: lines of JSON for machines, points for TensorBoard.

    Lines are only added, so a resumed run has the repeated steps twice.
    """

    def __init__(self, folder, is_written=True):
        self._folder, self._is_written = folder, is_written
        self.writer = tf.summary.create_noop_writer()
        if is_written:
            self.writer = tf.summary.create_file_writer(str(folder.logs))

    def event(self, kind, **values):
        """Adds a line: the time, the kind of event, and the values; null for a non-finite value."""
        if not self._is_written:
            return
        values = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        line = json.dumps({"time": now, "event": kind, **values}) + "\n"
        with self._folder.log.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a killed process was writing the last line
                    line = "\n" + line
            file.write(line.encode())

    def scalars(self, prefix, values, step):
        """Adds points to TensorBoard's curves `prefix/name`; none for None."""
        with self.writer.as_default(step=step):
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(f"{prefix}/{name}", value)

    def flush(self):
        try:
            self.writer.flush()
        except tf.errors.OpError as error:
            reason = str(error.message).splitlines()[0]
            raise OSError(f"{self._folder.logs} cannot be written ({reason}).") from error

    def close(self):
        with contextlib.suppress(tf.errors.OpError):  # `flush` has reported it
            self.writer.close()


class Meter:
    """The sums of some steps' metrics, {name: sum}, their speed, and their wait for data."""

    def __init__(self, sums=(), steps=0):
        self.sums, self.steps = dict(sums), steps
        self.restart()

    def restart(self):
        """Measures speed from here on; the steps before, one of which compiled, count no more."""
        self._waited, self._measured = 0.0, 0
        self._start = self.last = time.perf_counter()  # `last`: when the last step ended

    def add(self, metrics, waited):
        """Adds one step's metrics, {name: number}, and the seconds it waited for data."""
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self._measured += 1
        self.last = time.perf_counter()
        self._waited += waited

    def means(self):
        """The metrics' means over the steps; a skipped update has no gradient norm to count."""
        means = {name: value / self.steps for name, value in self.sums.items()}
        skipped = self.sums.get("skipped_updates", 0)
        if "gradient_norm" in means and skipped:
            means["gradient_norm"] = self.sums["gradient_norm"] / max(self.steps - skipped, 1)
        return means

    def rates(self, images):
        """Images per second, at `images` per step, and the share of time without data.

        Both are None where no step was measured.
        """
        if not self._measured:
            return {"images_per_second": None, "data_wait": None}
        seconds = self.seconds_of(self._measured)
        return {
            "images_per_second": round(self._measured * images / seconds, 2),
            "data_wait": round(self._waited / seconds, 4),
        }

    def seconds_of(self, steps):
        """How long so many steps take; None where no step was measured."""
        if not self._measured:
            return None
        return max(self.last - self._start, 1e-9) * steps / self._measured


class EpochDisplay:
    """A bar in a terminal, a line per epoch in a log file, or nothing."""

    def __init__(self, epochs, figures, verbose=True):
        self._epochs, self._figures, self._verbose = epochs, figures, verbose
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[words]}"),
            TimeRemainingColumn(),
            console=Terminal(file=sys.stdout),
            transient=True,
            disable=not (verbose and sys.stdout.isatty()),
        )
        self._counting = self.bar.add_task("", words="", visible=False)
        self._waiting = self.bar.add_task("", words="", visible=False, total=None)

    def begin(self, what, total, done=0):
        """Starts the bar again: an epoch's training, or its evaluation."""
        self.bar.update(self._waiting, visible=False)
        shown = {"description": what, "total": total, "completed": done}
        self.bar.reset(self._counting, visible=True, words=f"{done}/{total}", **shown)

    def step(self, done, words=""):
        total = self.bar.tasks[self._counting].total
        self.bar.update(self._counting, completed=done, words=f"{done}/{total:.0f} {words}")

    def wait(self, what):
        """Shows a bar without an end in place of the other, until that begins again."""
        self.bar.update(self._counting, visible=False)
        self.bar.update(self._waiting, description=what, visible=True)

    @contextlib.contextmanager
    def waiting(self, what):
        """Shows a bar without an end in place of the other within it."""
        self.wait(what)
        try:
            yield
        finally:
            self.bar.update(self._waiting, visible=False)
            self.bar.update(self._counting, visible=True)

    def epoch(self, row, rates, seconds):
        """Prints the line of a finished epoch; another one takes `seconds`, None for unknown."""
        if not self._verbose:
            return
        training = in_words(self._figures.training, row, 4, ", ")
        validation = in_words(self._figures.validation, row, 4, ", ", prefix="val_")
        averaged = f"val_averaged_{self._figures.best}"
        if averaged in row:
            validation += f", averaged {number(row[averaged])}"
        speed = ""
        if seconds is not None:  # else the only step was the one that compiled
            left = datetime.timedelta(seconds=round(seconds * (self._epochs - row["epoch"])))
            speed = f"; {rates['images_per_second']:.0f} images/s, about {left} left"
        self.bar.console.print(
            f"Epoch {row['epoch']}/{self._epochs}: {training}; validation: {validation}{speed}",
            highlight=False,
            soft_wrap=True,
        )


class Profile:
    """TensorBoard's profiler over the run's steps (first, end), counted from 0, without `end`."""

    def __init__(self, logs, steps=None):
        self._logs, self._steps, self._is_on = logs, range(*steps or (0, 0)), False

    def before(self, step):
        if step in self._steps and not self._is_on:
            tf.profiler.experimental.start(str(self._logs))
            self._is_on = True

    def after(self, step):
        if step + 1 not in self._steps:
            self.stop()

    def stop(self):
        """Writes a profile that is being taken."""
        if self._is_on:
            tf.profiler.experimental.stop()
            self._is_on = False
            print(f"TensorBoard shows the profile in {self._logs} under Profile.")
