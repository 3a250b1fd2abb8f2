"""How long a training will take: its first seconds are measured, and its epochs follow from them.

Each model's run is begun in a process of its own (`training_trial.py`), so its memory is its own.
"""

import csv
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from pit_keras.measure.cost_table import problem_of

RESULTS = pathlib.Path(__file__).with_name("folder_results.csv")
PARTS = 5  # of the timed steps, whose means say how far the speed of this machine varies
ABOUT_AS_MANY = 4  # a folder is about as large as one of at most so many times its images
MOST_TIME_FOR_SAVING = 0.05  # the trainer's own limit at the end of an epoch
# What a trial does one after the other, and the share of it that is then done.
STAGES = {"starting": 0.0, "compiling": 0.25, "training": 0.5, "evaluating": 0.9}


@dataclasses.dataclass(frozen=True)
class Trial:
    """What the beginning of a run took, in seconds and bytes."""

    start_seconds: float  # until the first step is done: imports, building, compiling
    step_seconds: list[float]  # of later steps, with their wait for data
    first_evaluation_seconds: float  # of one batch, with compiling
    evaluation_seconds_per_image: float
    save_seconds: float
    memory: int | None  # at its peak; None where the system does not tell
    machine: str

    @property
    def step(self):
        """Seconds of a step: mean, and the means of the quickest and the slowest fifth."""
        count = len(self.step_seconds)
        parts = min(PARTS, count)
        bounds = [count * part // parts for part in range(parts + 1)]
        means = [
            statistics.fmean(self.step_seconds[start:end])
            for start, end in itertools.pairwise(bounds)
        ]
        return statistics.fmean(self.step_seconds), min(means), max(means)


def run_seconds(config, sizes, trial, step):
    """Seconds of a whole run, if each of its steps takes `step` seconds.

    `sizes` are the numbers of images, {"train", "val"}.
    """
    training = config.training
    steps = sizes["train"] // training.images_of_update
    passes = 2 if training.ema_decay else 1  # raw and averaged weights
    evaluation = passes * sizes["val"] * trial.evaluation_seconds_per_image
    epoch = steps * step + evaluation
    epoch += min(trial.save_seconds, MOST_TIME_FOR_SAVING * epoch)
    once = trial.start_seconds + trial.first_evaluation_seconds + trial.save_seconds
    # The model that is kept is evaluated once more, after the last epoch.
    return once + training.epochs * epoch + evaluation


def plan_row(config, sizes, trial):
    """A row of the plan, {column: value}."""
    mean, quickest, slowest = trial.step
    hours, low, high = (
        round(run_seconds(config, sizes, trial, step) / 3600, 4)
        for step in (mean, quickest, slowest)
    )
    return {
        "model": config.model.name,
        "recipe": config.recipe,
        "weights": config.model.weights or "none",
        "image_size": "x".join(map(str, config.data.image_size)),
        "batch_size": config.training.batch_size,
        "memory_gib": "" if trial.memory is None else round(trial.memory / 2**30, 1),
        "images_per_second": round(config.training.images_of_update / mean, 1),
        "epochs": config.training.epochs,
        "hours": hours,
        "hours_from": low,
        "hours_to": high,
        "train_images": sizes["train"],
        "val_images": sizes["val"],
        "machine": trial.machine,
    }


def try_run(config, show):
    """The `Trial` of a configuration; a ValueError says why there is none.

    `show` is called with what is being done and the share of all of it that is done.
    """
    module = "pit_keras.measure.training_trial"
    with tempfile.TemporaryDirectory(prefix="pit_keras_plan_") as folder:
        arguments = [config.to_json(), os.path.join(folder, "run")]
        errors = pathlib.Path(folder, "stderr")
        with (
            errors.open("wb") as stderr,
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                errors="replace",
            ) as process,
        ):
            try:
                answers, start = _followed(process.stdout, show)
            except BaseException:  # Ctrl-C too
                process.kill()
                raise
        ended = subprocess.CompletedProcess(
            module, process.returncode, stderr=errors.read_text(errors="replace")
        )
    if problem := problem_of(ended, answers):
        raise ValueError(problem)
    return Trial(start_seconds=start, **answers[-1])


def _followed(lines, show):
    """What a process of `training_trial` found, and the seconds until its first step was done."""
    begun, start, answers = time.perf_counter(), None, []
    show("starting", 0.0)
    for line in lines:
        if not line.startswith("{"):
            continue
        message = json.loads(line)
        if "doing" not in message:
            answers.append(message)
            continue
        if message["doing"] == "training" and start is None:
            start = time.perf_counter() - begun
        begin = STAGES[message["doing"]]
        end = min((share for share in STAGES.values() if share > begin), default=1.0)
        show(message["doing"], begin + (end - begin) * message["share"])
    return answers, start


def results_near(images):
    """The rows of `RESULTS` for folders of about so many images."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        row
        for row in rows
        if images / ABOUT_AS_MANY <= int(row["images"]) <= images * ABOUT_AS_MANY
    ]
