"""The checkpoints of a run and its `model.keras`, as its chief writes them and reads them back.

A checkpoint is one `.npz` file, an archive of arrays that NumPy reads anywhere. The archive has a
checksum (CRC-32) of every array, which reading verifies.
"""

import io
import json
import re

import numpy as np

from pit_keras.models.serialization import read_model
from pit_keras.runs.run_folder import explained, replacing

_NAME = re.compile(r"step-(\d+)\.npz")


class DamagedCheckpointError(OSError):
    """A checkpoint file that cannot be read."""


class RunKeeper:
    """Keeps a run's newest checkpoints, `step-00001234.npz`, and its best model.

    Args:
        keep: How many checkpoints, two or more: one is whole whenever the process ends.
        model: A model like the trained one, on no strategy and with nothing frozen; its weights
            are overwritten and it is saved.

    Attributes:
        new_best: The arrays of the best epoch so far, until `save` has written them.
    """

    def __init__(self, folder, keep, model):
        self._folder, self._keep, self._model = folder, keep, model
        self._best = folder.checkpoints / "best.npz"
        self.new_best = None

    @property
    def paths(self):
        """The checkpoints by their steps, the newest last."""
        files = self._folder.checkpoints.glob("step-*.npz")
        named = [path for path in files if _NAME.fullmatch(path.name)]
        return sorted(named, key=lambda path: int(_NAME.fullmatch(path.name)[1]))

    def newest(self):
        """The arrays of the newest checkpoint that can be read; None if the run has not started.

        Damaged ones are named and passed over. If all are damaged or lost, that is an error: no run
        starts over without being asked to.
        """
        folder = self._folder
        for path in reversed(self.paths):
            try:
                return read_arrays(path)
            except DamagedCheckpointError as error:
                print(error)
        if self.paths:
            raise OSError(
                f"None of the checkpoints in {folder.checkpoints} can be read; use another "
                "--output_dir."
            )
        if folder.model.exists() or self._best.exists():
            raise FileNotFoundError(
                f"{folder.path} has finished epochs, but {folder.checkpoints} has no checkpoint to "
                "resume from; delete the folder to start over."
            )
        if folder.history.exists():
            print(f"The run in {folder.path} has no checkpoint; starting over.")
            folder.history.unlink()
        return None

    def save(self, step, arrays):
        """Writes the best epoch, if it is new, and then the state of a step; returns its path.

        In this order, so that no state refers to a best epoch that is not there. If a state cannot
        be written, the older ones are untouched.
        """
        if self.new_best is not None:
            write_arrays(self._best, self.new_best)
            self._write_model(self.new_best)
            self.new_best = None
        path = self._folder.checkpoints / f"step-{step:08d}.npz"
        write_arrays(path, arrays)
        for older in self.paths[: -self._keep]:
            older.unlink()
        return path

    def best(self):
        """The arrays of the best epoch; None if they are lost."""
        try:
            return read_arrays(self._best)
        except DamagedCheckpointError:
            return None

    def model_weights(self):
        """The weights in `model.keras`; None, and a message, if it is missing or damaged."""
        file = self._folder.model
        if not file.exists():
            print(f"{file} is missing.")
            return None
        try:
            weights = read_model(file).get_weights()
        except ValueError as error:
            print(error)
            return None
        if [value.shape for value in weights] != [v.shape for v in self._model.weights]:
            print(f"{file} is not the model of this run.")
            return None
        return weights

    def mend_model(self):
        """Writes `model.keras` anew from the best epoch's checkpoint."""
        best = self.best()
        if best is None:
            raise FileNotFoundError(
                f"{self._folder.model} is lost, and so is the best epoch's checkpoint "
                f"{self._best}; train in another --output_dir."
            )
        self._write_model(best)
        print(f"{self._folder.model} is written anew from the checkpoint of the best epoch.")

    def _write_model(self, best):
        """Saves the better of the raw and the averaged weights."""
        is_averaged = json.loads(str(best["progress"]))["best_is_averaged"]
        part = "average/" if is_averaged else "model/"
        self._model.set_weights([best[name] for name in sorted(best) if name.startswith(part)])
        with replacing(self._folder.model) as temporary:
            self._model.save(temporary)


def write_arrays(path, arrays):
    """Writes arrays to an `.npz` file, whole or not at all."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_arrays(path):
    """The arrays of an `.npz` file; a `DamagedCheckpointError` if it cannot be read as a whole."""
    try:
        return unpacked(path.read_bytes())
    except Exception as error:  # NumPy and zipfile have no error of their own for damage
        raise DamagedCheckpointError(f"Checkpoint {path} cannot be read ({error}).") from error


def packed(arrays):
    """Arrays as the bytes of an `.npz` file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpacked(content):
    """The inverse of `packed`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
