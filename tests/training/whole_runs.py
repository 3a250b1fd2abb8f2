"""Whole runs of the `Trainer` in this process, and what they leave in their folders."""

import contextlib
import csv
import json

import tensorflow as tf

from pit_keras.runs.run_folder import RunFolder
from pit_keras.training.tasks import open_source_of
from pit_keras.training.trainer import Trainer


def trainer_of(config, folder, kind=Trainer, **options):
    """A trainer, or one of a class that interferes with it, that shows nothing."""
    return kind(config, open_source_of(config), folder, verbose=False, **options)


def train(config, folder):
    """Trains to the end; the trainer and its results."""
    trainer = trainer_of(config, folder)
    return trainer, trainer.run()


@contextlib.contextmanager
def eagerly(is_on=True):
    """Within it, where it is on, no function is traced: for a small network tracing takes longer
    than a dozen steps.

    For what the trainer does around its steps. The tests of the traced step, the runs of scripts
    and those of `test_kinds_of_run.py` are traced as everyone's.
    """
    tf.config.run_functions_eagerly(is_on)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def rows(folder):
    """The rows of history.csv, all of them texts."""
    with RunFolder(folder).history.open(newline="") as file:
        return list(csv.DictReader(file))


def checkpoints(folder):
    """The files of the newest states, the newest last."""
    return sorted(RunFolder(folder).checkpoints.glob("step-*.npz"))


def events(folder, kind):
    """What log.jsonl says of a kind of event."""
    lines = RunFolder(folder).log.read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def contents(folder):
    """All files, {path: bytes}."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def forget_last_epoch(folder):
    """Takes a finished run back to where it was before its last epoch."""
    RunFolder(folder).results.unlink()
    checkpoints(folder)[-1].unlink()
