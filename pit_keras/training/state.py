"""What a run must remember to resume as if it had never stopped."""

import dataclasses
import json

import numpy as np
from keras import ops

from pit_keras.config.fields import Config, conflicts
from pit_keras.runs.run_folder import counted_from_one


@dataclasses.dataclass
class Progress:
    """How far a run has come: the part of its checkpoints that is plain JSON."""

    epoch: int = 0  # done, evaluation included
    step: int = 0  # updates done of the next epoch
    # For each worker, where its training data continues in the data's stream, and where the epoch
    # began.
    positions: list[int] = dataclasses.field(default_factory=lambda: [0])
    epoch_positions: list[int] = dataclasses.field(default_factory=lambda: [0])
    sums: dict[str, float] = dataclasses.field(default_factory=dict)  # the epoch's metrics
    unreadable: dict[str, int] = dataclasses.field(default_factory=dict)  # {image: position}
    best: list[float] = dataclasses.field(default_factory=list)  # see `Figures.rank`
    best_epoch: int = 0  # counted from 1 as in `history.csv`; 0 for none
    best_is_averaged: bool = False  # whether the averaged weights reached it
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    replicas: int | None = None  # of the last training; None before
    train_images: int | None = None  # in the training split

    def for_workers(self, workers):
        """The same progress for the current `Workers`, whose number may have changed.

        Then all continue where the farthest was: no example is met twice. Some are left out only
        where images were unreadable.
        """
        positions, begun, count = self.positions, self.epoch_positions, workers.count
        if len(positions) != count:
            positions, begun = count * [max(positions)], count * [max(begun)]
        if workers.is_chief and self.replicas not in (None, workers.replicas):
            print(
                f"Resuming on {workers.replicas} replicas instead of {self.replicas}: mixing and "
                "dropout will differ."
            )
        return dataclasses.replace(
            self, positions=positions, epoch_positions=begun, replicas=workers.replicas
        )


def read_progress(text):
    """The `Progress` that a checkpoint holds as JSON, of this version or an earlier one."""
    progress = Progress(**json.loads(text))
    if isinstance(progress.best, float):  # top-1 or AP, or -1
        progress.best = [progress.best] if progress.best >= 0 else []
    history = counted_from_one(progress.history)
    if history != progress.history:
        progress.history, progress.best_epoch = history, progress.best_epoch + 1
    return progress


class TrainingState:
    """The variables of a run and its `progress`, as arrays.

    The model's random generators are not part of it: each step seeds them from its number.
    """

    def __init__(self, config, model, optimizer, average=None, train_images=None):
        self.progress = Progress(train_images=train_images)
        self._config = config.to_json()
        self._variables = {
            "model": model.weights,
            "optimizer": optimizer.variables,
            "average": average.variables if average else [],
        }

    def arrays(self, parts=("model", "optimizer", "average")):
        """What `restore` takes, {name: array}; or some of the parts."""
        return {
            "progress": np.array(json.dumps(dataclasses.asdict(self.progress))),
            "config": np.array(self._config),
            **{
                _name(part, number): ops.convert_to_numpy(variable)
                for part in parts
                for number, variable in enumerate(self._variables[part])
            },
        }

    def restore(self, arrays):
        """Takes `arrays()`; those of another run are a `ValueError`, and nothing is changed."""
        try:
            stored = Config.from_json(str(arrays["config"]))
            progress = read_progress(str(arrays["progress"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"its fields cannot be read ({error}).") from error
        conflict = conflicts(stored, Config.from_json(self._config))
        if conflict:
            raise ValueError(f"{conflict}.")
        images = self.progress.train_images
        if progress.train_images not in (None, images):
            raise ValueError(f"it has {progress.train_images} training images, the data {images}.")
        self.assign(arrays)
        self.progress = dataclasses.replace(progress, train_images=images)

    def assign(self, arrays):
        """Takes variables from `arrays()`; missing parts stay as they are."""
        values = []
        for part, variables in self._variables.items():
            names = [_name(part, number) for number in range(len(variables))]
            if not any(name in arrays for name in names):
                continue
            for name, variable in zip(names, variables, strict=True):
                if name not in arrays or arrays[name].shape != tuple(variable.shape):
                    raise ValueError(f"{name} is not this run's {variable.path}.")
                values.append((variable, arrays[name]))
        for variable, value in values:
            variable.assign(value)


def _name(part, number):
    return f"{part}/{number:04d}"
