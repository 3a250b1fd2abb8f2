"""The training loop. It is not `Model.fit`, which under `MirroredStrategy` fails with compiled
steps and gives all replicas the same dropout; Keras' callbacks are driven all the same.
"""

import collections
import contextlib
import json
import math
import sys
import time

import keras

from pit_keras.data.pipeline import (
    check_train_batches,
    evaluation_batches,
    steps_per_epoch,
    train_batches,
)
from pit_keras.data.unreadable import UnreadableImages, load_images
from pit_keras.evaluation.classification import Evaluator
from pit_keras.evaluation.trained_model import DAMAGED_FILE_ERRORS
from pit_keras.training.assembly import make_strategy, model_of, optimizer_of
from pit_keras.training.averaging import WeightAverage
from pit_keras.training.config import validate
from pit_keras.training.fine_tuning import all_trainable, freeze
from pit_keras.training.history import history_rows, keep_history_rows
from pit_keras.training.run_folder import (
    RunFolder,
    explained,
    save_model_atomically,
    write_atomically,
)
from pit_keras.training.state import TrainingState
from pit_keras.training.step import compiled_step
from pit_keras.training.teacher import load_teacher


class Trainer:
    """One run, from its configuration to `results.json`.

    What can be wrong with the input is found while the object is made, before the run folder is.

    Args:
        config: A `Config`.
        source: What `pit_keras.data.sources.open_source` returns.
        output_dir: The run folder; made if need be, carried on if it holds the same run unfinished.
        verbose: Whether to show progress bars.

    Raises:
        ValueError: For values that do not fit each other or the data, a folder of another run, or a
            validation image that cannot be read.
        OSError: If weights to start from are missing.
    """

    def __init__(self, config, source, output_dir, verbose=True):
        validate(config)
        self.config, self.source, self.verbose = config, source, verbose
        self.folder = RunFolder(output_dir)
        self.folder.check(config)
        check_train_batches(source, config.data, config.training.batch_size)
        self.steps = steps_per_epoch(source, config.training.batch_size)
        self.unreadable = UnreadableImages()

        keras.utils.set_random_seed(config.training.seed)
        keras.config.set_dtype_policy(config.training.precision)
        self.strategy = make_strategy(config.training)
        # A run that is carried on has its weights in a checkpoint.
        self._is_new = not (self.folder.begun or self.folder.finished)
        with self.strategy.scope():
            self.model = model_of(config, source, config.model.weights if self._is_new else None)
            freeze(self.model, config.model.frozen_stages)
            self.optimizer = optimizer_of(config, self.model, self.steps)
            decay = config.training.ema_decay
            self.average = WeightAverage(self.model, decay) if decay else None
            distils = config.distillation.kind != "none"
            teacher = load_teacher(config, source) if distils else None
        # Callbacks look for `model.optimizer`. The model that is saved should not carry it, so
        # they get another model of the same layers.
        self._watched = keras.Model(self.model.inputs, self.model.outputs, name=self.model.name)
        self._watched.optimizer = self.optimizer
        self._step = compiled_step(
            config, self.model, self.optimizer, self.strategy, teacher, self.average
        )
        self._evaluator = Evaluator(self.model, self.strategy)
        if self._is_new:
            check_validation_images(source, verbose)

    def run(self):
        """Trains to the end, from where the folder's run stands, and returns the results.

        Of a finished run the results are returned; nothing is changed, unless `model.keras` is lost
        or damaged: it is then written anew.

        Raises:
            OSError: If another process trains in the folder, it cannot be written to, or what a run
                is carried on from is lost or damaged.
            UnreadableImageError: If too many images cannot be read.
            FloatingPointError: If the loss is not finite.
        """
        if self.folder.finished and self._saved_weights() is not None:
            print(f"The run in {self.folder.path} is finished; nothing is changed.")
            return json.loads(self.folder.results.read_text())
        with self.folder.locked():
            self.folder.check(self.config)
            state = TrainingState(
                self.folder,
                self.model,
                self.optimizer,
                self.average,
                keep=self.config.training.keep_checkpoints,
            )
            if self.folder.finished:
                self._mend_model(state)
                return json.loads(self.folder.results.read_text())
            self.folder.create(self.config, self.source.class_names)
            self._carry_on(state)
            self._train(state)
            results = self._results(state)
            write_atomically(self.folder.results, json.dumps(results, indent=2) + "\n")
            return results

    def _carry_on(self, state):
        """Restores the newest state, if there is one, and whatever else of the run was lost."""
        path, rows = self.folder.path, history_rows(self.folder.history)
        if not state.restore():
            # A run that was killed while its first epoch was saved has one row and no state.
            if len(rows) > 1 or (self.folder.model.exists() and not rows) or not self._is_new:
                raise FileNotFoundError(
                    f"{path} holds a run of which epochs were done, but {self.folder.checkpoints} "
                    "holds no checkpoint to carry on from; delete the folder, or choose another "
                    "--output_dir, to begin anew."
                )
            if rows:
                print(f"No epoch of the run in {path} was saved; beginning anew.")
            keep_history_rows(self.folder.history, 0)
            return
        epoch = int(state.epoch)
        if epoch > self.config.training.epochs:
            raise FileExistsError(
                f"{path} holds a run of {epoch} epochs already, and --epochs is "
                f"{self.config.training.epochs}; choose another --output_dir."
            )
        print(f"Carrying on after epoch {epoch} of {self.config.training.epochs}.")
        if self._saved_weights() is None:
            self._mend_model(state)
            state.restore()
        kept = keep_history_rows(self.folder.history, epoch)
        if kept < epoch:
            print(f"{self.folder.history} has lost the rows of {epoch - kept} epochs.")
        self.unreadable.positions |= self.folder.read_unreadable(until=int(state.position))

    def _train(self, state):
        epochs = self.config.training.epochs
        callbacks = self._callbacks()
        callbacks.on_train_begin()
        batches = iter(self.strategy.experimental_distribute_dataset(self._train_batches(state)))
        for epoch in range(int(state.epoch), epochs):
            callbacks.on_epoch_begin(epoch)
            logs, position = self._train_epoch(batches, callbacks, state)
            evaluations = self._evaluate_both()
            logs |= _columns(evaluations)
            with explained(self.folder.path):
                callbacks.on_epoch_end(epoch, logs)
            self.folder.write_unreadable(self.unreadable.until(position))
            state.epoch.assign(epoch + 1)
            state.position.assign(position)
            better = max(evaluations, key=lambda kind: _rank(evaluations[kind]))
            if evaluations[better]["top1"] > float(state.best):
                state.best.assign(evaluations[better]["top1"])
                state.best_epoch.assign(epoch)
                state.best_is_averaged.assign(better == "averaged")
                self._save_model(state)
                state.save_best()
            state.save()
        callbacks.on_train_end()

    def _save_model(self, state):
        """Writes `model.keras`, the raw or the averaged weights, as `state` says of the best."""
        kind = "averaged" if bool(state.best_is_averaged) else "raw"
        with self._weights(kind), all_trainable(self.model):
            save_model_atomically(self.model, self.folder.model)

    def _weights(self, kind):
        """Within it the model has its raw or its averaged weights."""
        return self.average.in_place() if kind == "averaged" else contextlib.nullcontext()

    def _saved_weights(self):
        """The weights in `model.keras`; None if it is not there or damaged, and says so."""
        file = self.folder.model
        if not file.exists():
            print(f"{file} is missing.")
            return None
        try:
            weights = keras.models.load_model(file).get_weights()
        except DAMAGED_FILE_ERRORS as error:
            print(f"{file} cannot be read ({str(error).strip().splitlines()[0]}).")
            return None
        if [value.shape for value in weights] != [v.shape for v in self.model.weights]:
            print(f"{file} is not the model of this run.")
            return None
        return weights

    def _mend_model(self, state):
        """Writes `model.keras` anew from the checkpoint of the best epoch."""
        if not state.restore_best():
            raise FileNotFoundError(
                f"{self.folder.model} is lost, and so is the best epoch's checkpoint in "
                f"{self.folder.best_checkpoint}; train in another --output_dir."
            )
        self._save_model(state)
        print(f"{self.folder.model} is written anew from the checkpoint of the best epoch.")

    def _train_epoch(self, batches, callbacks, state):
        """One epoch; returns its logs and the position of the data stream after it."""
        sums = collections.Counter()
        start = time.perf_counter()
        for step in range(self.steps):
            callbacks.on_train_batch_begin(step)
            with self.unreadable.plain_errors():
                batch = next(batches)
            for name, value in self._step(batch["image"], batch["label"]).items():
                sums[name] += float(value)
            if not math.isfinite(sums["loss"]):
                raise self._not_finite(batch, step, state)
            logs = {name: total / (step + 1) for name, total in sums.items()}
            callbacks.on_train_batch_end(step, logs)
        seconds = time.perf_counter() - start
        position = self._of_all_replicas(batch["position"])[-1]
        logs["learning_rate"] = float(self.optimizer.learning_rate)
        logs["images_per_second"] = self.steps * self.config.training.batch_size / seconds
        logs["unreadable_images"] = len(self.unreadable.until(position))
        return logs, position

    def _not_finite(self, batch, step, state):
        """The error for a loss that is not finite; the batch's examples are listed in a file."""
        names = {
            int(example): self.source.describe("train", int(example))
            for example in self._of_all_replicas(batch["id"])
        }
        self.folder.write_not_finite(names)
        newest = state.newest
        kept = (
            f"The last good checkpoint is {newest}, after epoch {int(state.epoch)}; the same "
            "command carries on from it"
            if newest
            else "No epoch was finished; the same command begins anew"
        )
        return FloatingPointError(
            f"The loss is not finite at step {step + 1} of {self.steps} in epoch "
            f"{int(state.epoch) + 1}. {kept}, to the same end unless a value changes: a lower "
            "--config.optimizer.learning_rate in another --output_dir may help. The batch's "
            f"{len(names)} examples are listed in {self.folder.not_finite}; the first is "
            f"{next(iter(names.values()))}."
        )

    def _of_all_replicas(self, values):
        """A batch's integers, (B,), as a list, in order."""
        parts = self.strategy.experimental_local_results(values)
        return [int(value) for part in parts for value in part.numpy()]

    def _train_batches(self, state):
        return train_batches(
            self.source,
            self.config.data,
            batch_size=self.config.training.batch_size,
            seed=self.config.training.seed,
            start=int(state.position),
            unreadable=self.unreadable,
        )

    def _evaluate_both(self):
        """Evaluates the weights and, where there is one, their average: {"raw", "averaged"}."""
        kinds = ("raw", "averaged") if self.average else ("raw",)
        evaluations = {}
        for kind in kinds:
            with self._weights(kind):
                evaluations[kind] = self._evaluate()
        return evaluations

    def _evaluate(self):
        training, unreadable = self.config.training, UnreadableImages()
        batches = evaluation_batches(
            self.source,
            "val",
            self.config.data,
            batch_size=training.eval_batch_size or training.batch_size,
            unreadable=unreadable,
        )
        with unreadable.plain_errors():
            return self._evaluator(batches)

    def _callbacks(self):
        return keras.callbacks.CallbackList(
            [
                keras.callbacks.CSVLogger(str(self.folder.history), append=True),
                keras.callbacks.TensorBoard(str(self.folder.logs), write_graph=False),
            ],
            add_progbar=self.verbose,
            model=self._watched,
            epochs=self.config.training.epochs,
            steps=self.steps,
            # A bar where someone watches, a line for each epoch in a log file.
            verbose=1 if sys.stdout.isatty() else 2,
        )

    def _results(self, state):
        """Exact results of `model.keras` as it was written, read back from its file."""
        weights = self._saved_weights()
        if weights is None:
            self._mend_model(state)
            weights = self._saved_weights()
        both = self._results_of_both(state)
        self.model.set_weights(weights)
        return {
            **self._evaluate(),
            **both,
            "split": "val",
            "dataset": self.config.data.dataset,
            "model": self.config.model.name,
            "recipe": self.config.recipe,
            "best_epoch": int(state.best_epoch),
            "epochs": self.config.training.epochs,
            "eval_crop": self.config.data.eval_crop,
            "unreadable_images": len(self.unreadable.until(int(state.position))),
        }

    def _results_of_both(self, state):
        """With averaging: which weights `model.keras` has, and the results of both at its epoch."""
        if not self.average:
            return {}
        kind = "averaged" if bool(state.best_is_averaged) else "raw"
        if not state.restore_best():
            print("The best epoch's checkpoint is lost; results.json holds one of the two results.")
            return {"weights": kind}
        return {"weights": kind, **self._evaluate_both()}


def _columns(evaluations):
    """Evaluations as columns of the history: `val_top1`, ..., `val_averaged_top1`, ..."""
    prefixes = {"raw": "val_", "averaged": "val_averaged_"}
    return {
        prefixes[kind] + name: evaluation[name]
        for kind, evaluation in evaluations.items()
        for name in ("loss", "top1", "top5")
    }


def _rank(evaluation):
    """The better of two evaluations has the higher top-1, or the lower loss at the same one."""
    return evaluation["top1"], -evaluation["loss"]


def check_validation_images(source, verbose):
    """Reads every validation image once: one that cannot be read would end the run's first epoch.

    Raises:
        UnreadableImageError: For the first that cannot be read.
    """
    if not source.is_encoded:
        return
    unreadable = UnreadableImages()
    images = load_images(source.scan("val"), source, "val", unreadable)
    bar = keras.utils.Progbar(source.sizes["val"], verbose=int(verbose and sys.stdout.isatty()))
    with unreadable.plain_errors():
        for number, _ in enumerate(images, 1):
            bar.update(number)
