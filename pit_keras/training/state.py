"""What a run must remember to carry on: weights, optimizer and position, in checkpoints."""

import tensorflow as tf


class TrainingState:
    """All of a run's state, in checkpoints that are written atomically and carry checksums.

    Args:
        folder: A `RunFolder`.
        model: The model that is saved in the end, built.
        optimizer: Its optimizer, built.
        keep: Number of checkpoints that are kept, beside the best one.

    Attributes:
        epoch: Epochs done.
        position: Examples drawn from the data set's stream, where training data carries on.
        best: Best top-1 on the validation split so far, -1 before the first evaluation.
        best_epoch: The epoch that reached it, counted from 0 as in `history.csv`.
    """

    def __init__(self, folder, model, optimizer, keep):
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.position = tf.Variable(0, dtype=tf.int64)
        self.best = tf.Variable(-1.0, dtype=tf.float64)
        self.best_epoch = tf.Variable(0, dtype=tf.int64)
        self._checkpoint = tf.train.Checkpoint(
            # By index, since the paths of Keras' variables need not be unique. `variables` holds
            # the states of the random generators too.
            model=list(model.variables),
            optimizer=list(optimizer.variables),
            epoch=self.epoch,
            position=self.position,
            best=self.best,
            best_epoch=self.best_epoch,
        )
        self._last = tf.train.CheckpointManager(
            self._checkpoint, str(folder.checkpoints), max_to_keep=keep
        )
        self._best = tf.train.CheckpointManager(
            self._checkpoint, str(folder.best_checkpoint), max_to_keep=1
        )

    def restore(self):
        """Restores the newest readable checkpoint.

        Returns:
            Whether there was one. A checkpoint that cannot be read is named and passed over.

        Raises:
            OSError: If there are checkpoints and none can be read: nothing is begun anew unasked.
        """
        checkpoints = list(reversed(self._last.checkpoints))
        for path in checkpoints:
            try:
                self._checkpoint.restore(path).assert_consumed()
                return True
            # The reader has no error of its own: damage shows as whatever it ran into.
            except (
                tf.errors.OpError,
                IndexError,
                RuntimeError,
                ValueError,
                AssertionError,
            ) as error:
                print(f"Checkpoint {path} cannot be read ({error}); trying the one before.")
        if checkpoints:
            raise OSError(
                f"None of the checkpoints in {self._last.directory} can be read; choose another "
                "--output_dir to begin anew."
            )
        return False

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
