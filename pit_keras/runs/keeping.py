"""What the chief of a run writes into its folder and reads back: checkpoints and `model.keras`."""

import json

from pit_keras.models.serialization import read_model
from pit_keras.runs.checkpoints import (
    Checkpoints,
    DamagedCheckpointError,
    read_arrays,
    write_arrays,
)
from pit_keras.runs.run_folder import save_model_atomically


class RunKeeper:
    """Keeps a run's states and its best model.

    Args:
        keep: Number of checkpoints, beside the best epoch's.
        model: A model like the trained one, on no strategy and with nothing frozen; its weights
            are overwritten and it is saved.
    """

    def __init__(self, folder, keep, model):
        self._folder, self._model = folder, model
        self.checkpoints = Checkpoints(folder.checkpoints, keep)
        self._best = None

    def newest(self):
        """The arrays of the newest readable checkpoint; None if the run has not started.

        Raises:
            OSError: If checkpoints are lost or damaged: no run starts over without being asked to.
        """
        path, arrays = self.checkpoints.read_newest()
        if path is not None:
            return arrays
        folder = self._folder
        if folder.model.exists() or self.checkpoints.best.exists():
            raise FileNotFoundError(
                f"{folder.path} has finished epochs, but {folder.checkpoints} has no checkpoint to "
                "resume from; delete the folder to start over."
            )
        if folder.history.exists():
            print(f"The run in {folder.path} has no checkpoint; starting over.")
            folder.history.unlink()
        return None

    def note_best(self, arrays):
        """Remembers the state of the best epoch so far, for `save`."""
        self._best = arrays

    def save(self, step, arrays):
        """Writes the best epoch, if it is new, and then the state of a step; returns its path.

        In this order, so that no state refers to a best epoch that is not there.
        """
        if self._best is not None:
            write_arrays(self.checkpoints.best, self._best)
            self._write_model(self._best)
            self._best = None
        return self.checkpoints.write(step, arrays)

    def best(self):
        """The arrays of the best epoch; None if they are lost."""
        try:
            return read_arrays(self.checkpoints.best)
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
                f"{self.checkpoints.best}; train in another --output_dir."
            )
        self._write_model(best)
        print(f"{self._folder.model} is written anew from the checkpoint of the best epoch.")

    def _write_model(self, best):
        """Saves the better of the raw and the averaged weights."""
        is_averaged = json.loads(str(best["progress"]))["best_is_averaged"]
        part = "average/" if is_averaged else "model/"
        self._model.set_weights([best[name] for name in sorted(best) if name.startswith(part)])
        save_model_atomically(self._model, self._folder.model)
