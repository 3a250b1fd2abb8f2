"""The first seconds of a training run, measured in a process of their own:

    python -m pit_keras.measure.training_trial CONFIG OUTPUT_DIR

CONFIG is the JSON of a `Config`. It prints a JSON object per line for
`pit_keras.measure.training_plan`: what it is doing, and in the end what it measured.
"""

import contextlib
import functools
import json
import sys
import time

from pit_keras.config.fields import Config
from pit_keras.data.unreadable import UnreadableImageError, UnreadableImages
from pit_keras.errors import one_line
from pit_keras.measure.machine import description, largest_memory
from pit_keras.training.interruption import TrainingInterrupted
from pit_keras.training.tasks import open_source_of
from pit_keras.training.trainer import Trainer

UNTIMED_STEPS = 3  # one is compiled; meanwhile the batches of the next were prepared
LEAST_STEPS, LEAST_SECONDS = 5, 10.0


class StepClock:
    """Keeps the seconds of each step of a run, and says when there are enough."""

    def __init__(self):
        self._seconds = []

    @property
    def timed(self):
        """Seconds of the steps that count; a run that ends early may have few."""
        return self._seconds[UNTIMED_STEPS:] or self._seconds[1:] or self._seconds

    def __call__(self, seconds):
        self._seconds.append(seconds)
        timed = self._seconds[UNTIMED_STEPS:]
        shares = len(timed) / LEAST_STEPS, sum(timed) / LEAST_SECONDS
        _print(doing="training", share=min(1.0, *shares))
        return min(shares) >= 1


def trial(config, output_dir):
    """Begins a run as its command does, ends it when the clock has enough, and evaluates.

    Returns the fields of `training_plan.Trial` but for `start`.
    """
    clock = StepClock()
    trainer = Trainer(config, open_source_of(config), output_dir, verbose=False, is_enough=clock)
    _print(doing="compiling", share=0.0)
    with contextlib.suppress(TrainingInterrupted):
        trainer.run()
    _print(doing="evaluating", share=0.0)
    events = map(json.loads, trainer.folder.log.read_text(encoding="utf-8").splitlines())
    saves = [event["seconds"] for event in events if event["event"] == "checkpoint"]
    evaluate = _evaluation_of(trainer)
    batch = config.training.eval_batch_size or config.training.batch_size
    first, _ = evaluate(cap=batch)
    # No more images than it was trained on in the same time.
    seconds, images = evaluate(cap=max(batch, config.training.images_of_update * len(clock.timed)))
    return {
        "step_seconds": clock.timed,
        "first_evaluation_seconds": first,
        "evaluation_seconds_per_image": seconds / images,
        "save_seconds": saves[-1],
        "memory": _largest_memory(),
        "machine": "{device}, {threads} threads".format(**description()),
    }


def _evaluation_of(trainer):
    """A function that evaluates at most `cap` validation images: the seconds, and how many."""
    training, unreadable = trainer.config.training, UnreadableImages()
    evaluator = trainer.task.evaluator(trainer.model, trainer.workers)  # compiled by its first call
    batch_size = training.eval_batch_size or training.batch_size
    options = {"batch_size": batch_size, "unreadable": unreadable}

    def evaluate(cap):
        start = time.perf_counter()
        make = functools.partial(trainer.task.evaluation_batches, **options, cap=cap)
        with unreadable.plain_errors():
            images = evaluator(trainer.workers.batches(make))["images"]
        return time.perf_counter() - start, images

    return evaluate


def _largest_memory():
    try:
        return largest_memory()
    except OSError:  # not on this system
        return None


def main(config, output_dir):
    try:
        _print(**trial(Config.from_json(config), output_dir))
    except (ValueError, OSError, ImportError, FloatingPointError, UnreadableImageError) as error:
        _print(problem=one_line(error))
        sys.exit(1)


def _print(**message):
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
