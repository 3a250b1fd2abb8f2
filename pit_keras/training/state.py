"""What a run must remember to carry on: weights, optimizer and position, in checkpoints."""

import re

import tensorflow as tf

from pit_keras.training.run_folder import write_atomically


class TrainingState:
    """All of a run's state, in checkpoints that are written atomically and carry checksums.

    Args:
        folder: A `RunFolder`.
        model: The model that is saved in the end, built.
        optimizer: Its optimizer, built.
        average: The `WeightAverage` of the model; None if there is none.
        keep: Number of checkpoints that are kept, beside the best one.

    Attributes:
        epoch: Epochs done.
        position: Examples drawn from the data set's stream, where training data carries on.
        best: Best top-1 on the validation split so far, -1 before the first evaluation.
        best_epoch: The epoch that reached it, counted from 0 as in `history.csv`.
        best_is_averaged: Whether its averaged weights reached it, not the weights themselves.
    """

    def __init__(self, folder, model, optimizer, average=None, *, keep):
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.position = tf.Variable(0, dtype=tf.int64)
        self.best = tf.Variable(-1.0, dtype=tf.float64)
        self.best_epoch = tf.Variable(0, dtype=tf.int64)
        self.best_is_averaged = tf.Variable(False)
        self._checkpoint = tf.train.Checkpoint(
            # By index, since the paths of Keras' variables need not be unique. `variables` holds
            # the states of the random generators too.
            model=list(model.variables),
            optimizer=list(optimizer.variables),
            epoch=self.epoch,
            position=self.position,
            best=self.best,
            best_epoch=self.best_epoch,
            best_is_averaged=self.best_is_averaged,
            average=average.variables if average else [],
        )
        self._last = self._manager(folder.checkpoints, keep)
        self._best = self._manager(folder.best_checkpoint, 1)

    def _manager(self, folder, keep):
        _mend_index(folder)
        return tf.train.CheckpointManager(self._checkpoint, str(folder), max_to_keep=keep)

    @property
    def newest(self):
        """Path of the newest checkpoint; None before the first."""
        return self._last.latest_checkpoint

    def restore(self):
        """Restores the newest readable checkpoint.

        Returns:
            Whether there was one. A checkpoint that cannot be read is named and passed over.

        Raises:
            OSError: If there are checkpoints and none can be read: nothing is begun anew unasked.
        """
        for path in reversed(self._last.checkpoints):
            if self._restore(path):
                return True
            print("Trying the one before.")
        if self._last.checkpoints:
            raise OSError(
                f"None of the checkpoints in {self._last.directory} can be read; choose another "
                "--output_dir to begin anew."
            )
        return False

    def restore_best(self):
        """Restores the checkpoint of the best epoch so far; returns whether it could be read."""
        newest = self._best.latest_checkpoint
        return newest is not None and self._restore(newest)

    def _restore(self, path):
        try:
            self._checkpoint.restore(path).assert_consumed()
        # The reader has no error of its own: damage shows as whatever it ran into.
        except (tf.errors.OpError, IndexError, RuntimeError, ValueError, AssertionError) as error:
            print(f"Checkpoint {path} cannot be read ({error}).")
            return False
        return True

    def save(self):
        """Writes the newest checkpoint and removes those beyond the number to keep."""
        self._write(self._last)

    def save_best(self):
        """Writes the checkpoint of the best epoch so far in place of the one before."""
        self._write(self._best)

    def _write(self, manager):
        try:
            manager.save(checkpoint_number=self.epoch)
        except tf.errors.OpError as error:
            reason = str(error.message).splitlines()[0]
            raise OSError(
                f"No checkpoint could be written to {manager.directory}: {reason}"
            ) from error


def _mend_index(folder):
    """Writes the file `checkpoint`, which lists the others, anew where it is lost or damaged."""
    matches = (re.fullmatch(r"ckpt-(\d+)\.index", file.name) for file in folder.glob("*.index"))
    numbers = sorted(int(match[1]) for match in matches if match)
    if not numbers or tf.train.get_checkpoint_state(str(folder)) is not None:
        return
    lines = [f'model_checkpoint_path: "ckpt-{numbers[-1]}"']
    for number in numbers:
        lines.append(f'all_model_checkpoint_paths: "ckpt-{number}"')
        written = (folder / f"ckpt-{number}.index").stat().st_mtime
        lines.append(f"all_model_checkpoint_timestamps: {written}")
    lines.append("last_preserved_timestamp: 0")  # those that are older are not managed
    write_atomically(folder / "checkpoint", "\n".join(lines) + "\n")
    print(f"{folder / 'checkpoint'} is missing or damaged; it is written anew.")
