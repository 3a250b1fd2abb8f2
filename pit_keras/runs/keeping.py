"""What the chief of a run writes into its folder and reads back: checkpoints and `model.keras`."""

import json

import keras

from pit_keras.runs.checkpoints import (
    Checkpoints,
    DamagedCheckpointError,
    read_arrays,
    write_arrays,
)
from pit_keras.runs.folder import save_model_atomically
from pit_keras.runs.trained_model import DAMAGED_FILE_ERRORS


class RunKeeper:
    """Keeps a run's states and its best model.

    Args:
        folder: A `RunFolder`.
        keep: Number of checkpoints that are kept, beside the best epoch's.
        model: A model like the one that is trained, on no strategy and with nothing frozen: its
            weights are overwritten and it is saved.
    """

    def __init__(self, folder, keep, model):
        self._folder, self._model = folder, model
        self.checkpoints = Checkpoints(folder.checkpoints, keep)
        self._best = None

    def newest(self):
        """The arrays of the newest checkpoint that can be read; None if a run may begin.

        Raises:
            FileNotFoundError: If checkpoints are lost: nothing is begun anew unasked.
            OSError: If there are some and none can be read.
        """
        path, arrays = self.checkpoints.read_newest()
        if path is None:
            self._check_nothing_is_lost()
        return arrays

    def _check_nothing_is_lost(self):
        folder = self._folder
        if folder.model.exists() or self.checkpoints.best.exists():
            raise FileNotFoundError(
                f"{folder.path} holds a run of which epochs were done, but {folder.checkpoints} "
                "holds no checkpoint to carry on from; delete the folder, or choose another "
                "--output_dir, to begin anew."
            )
        if folder.history.exists():
            print(f"Nothing of the run in {folder.path} was saved; beginning anew.")
            folder.history.unlink()

    def note_best(self, arrays):
        """Remembers the state of an epoch that is the best so far, to be written by `save`."""
        self._best = arrays

    def save(self, step, arrays):
        """Writes the best epoch, if there is a new one, and the state of a step.

        In this order: a state never tells of a best epoch that is not there.

        Returns:
            The checkpoint's path.

        Raises:
            OSError: If they cannot be written.
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
        """The weights in `model.keras`; None if it is not there or damaged, and says so."""
        file = self._folder.model
        if not file.exists():
            print(f"{file} is missing.")
            return None
        try:
            weights = keras.models.load_model(file, compile=False).get_weights()
        except DAMAGED_FILE_ERRORS as error:
            print(f"{file} cannot be read ({str(error).strip().splitlines()[0]}).")
            return None
        if [value.shape for value in weights] != [v.shape for v in self._model.weights]:
            print(f"{file} is not the model of this run.")
            return None
        return weights

    def mend_model(self):
        """Writes `model.keras` anew from the best epoch.

        Raises:
            FileNotFoundError: If that is lost too.
        """
        best = self.best()
        if best is None:
            raise FileNotFoundError(
                f"{self._folder.model} is lost, and so is the best epoch's checkpoint "
                f"{self.checkpoints.best}; train in another --output_dir."
            )
        self._write_model(best)
        print(f"{self._folder.model} is written anew from the checkpoint of the best epoch.")

    def _write_model(self, best):
        """Raw or averaged weights, as the arrays say which were the better ones."""
        is_averaged = json.loads(str(best["progress"]))["best_is_averaged"]
        part = "average/" if is_averaged else "model/"
        self._model.set_weights([best[name] for name in sorted(best) if name.startswith(part)])
        save_model_atomically(self._model, self._folder.model)
