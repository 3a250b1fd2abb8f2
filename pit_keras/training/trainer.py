"""The training loop. It is not `Model.fit`, which under `MirroredStrategy` fails with compiled
steps and gives all replicas the same dropout.

All workers take part in what they do together (steps, evaluations, the methods of `Workers`), in
the same order; only the chief reads and writes the run folder.
"""

import contextlib
import json
import math
import textwrap
import time

import keras
import numpy as np
import tensorflow as tf

import pit_keras
from pit_keras.config.fields import validate
from pit_keras.data.pipeline import steps_per_epoch
from pit_keras.data.source import Shard
from pit_keras.data.unreadable import UnreadableImageError, UnreadableImages, load_images
from pit_keras.errors import require_tensorflow
from pit_keras.models import check_can_recompute
from pit_keras.runs.checkpoints import DamagedCheckpointError, RunKeeper, packed, unpacked
from pit_keras.runs.mending import finished_results, stored_results
from pit_keras.runs.run_folder import (
    RunFolder,
    class_names_text,
    write_atomically,
)
from pit_keras.training.assembly import model_of, optimizer_of
from pit_keras.training.averaging import WeightAverage
from pit_keras.training.interruption import Interruption, TrainingInterrupted
from pit_keras.training.monitoring import Monitor
from pit_keras.training.state import TrainingState
from pit_keras.training.step import compiled_step
from pit_keras.training.tasks import task_of
from pit_keras.training.workers import join_workers
from pit_keras.waits import waiting

# An epoch's end is saved unless that would take more than this share of the time.
_MOST_TIME_FOR_SAVING = 0.05
_SECONDS_FOR_VALIDATION_IMAGES = 5.0
_LEAST_LOSS_SCALE = 2.0**-14


class Trainer:
    """One run, from its configuration to `results.json`.

    The constructor checks all input, before the run folder is made. If the folder holds the same
    run unfinished, that is resumed.

    Args:
        source: What `pit_keras.training.tasks.open_source_of` returns.
        workers: What `join_workers` returns; by default this process alone.
        profile: (first, end) steps of the run to profile for TensorBoard; None for none.
        save_on_signal: "USR1" or "USR2", a signal that saves and ends the run as Ctrl-C does.
        is_enough: A function of the seconds of a step, with its wait for data, that is called
            after each one; the run is saved and ended where it returns True.
    """

    def __init__(
        self,
        config,
        source,
        output_dir,
        verbose=True,
        workers=None,
        profile=None,
        save_on_signal=None,
        is_enough=lambda seconds: False,
    ):
        require_tensorflow("Training")
        validate(config)
        source = source.oriented(config.data.apply_orientation)
        self.config, self.source, self._profile = config, source, profile
        self._interruption, self._is_enough = Interruption(save_on_signal), is_enough
        self.task = task_of(config, source)
        self.workers = workers or join_workers(config.training.distribute)
        self.verbose = verbose and self.workers.is_chief
        self.folder = RunFolder(output_dir)
        self._eval_batch_size = config.training.eval_batch_size or config.training.batch_size
        self._check_batches()
        self.steps = steps_per_epoch(source, config.training.images_of_update)
        last = config.training.epochs * self.steps - 1
        if profile and profile[0] > last:
            raise ValueError(f"--profile must begin before step {last + 1}, got {profile[0]}.")
        self.unreadable, self._unreadable_in_evaluation = UnreadableImages(), UnreadableImages()
        with self.workers.must_live():
            if self.workers.is_chief:
                self.folder.check(config, source.class_names, self.task.category_ids)
            self.is_finished = self.workers.agree(stored_results(self.folder) is not None)
            # A run that is resumed has its weights in a checkpoint.
            self._is_new = self.workers.agree(not (self.folder.begun or self.is_finished))
            with waiting(f"Building {config.model.name}"):
                self._build()
            if self._is_new and self.workers.is_chief:
                with waiting("Checking the validation images"):
                    check_validation_images(source)

    def _check_batches(self):
        training, size = self.config.training, self.source.sizes["train"]
        if training.accumulate > 1 and training.images_of_update > size:
            raise ValueError(
                f"--accumulate={training.accumulate} x --batch_size={training.batch_size} is more "
                f"than the {size} training images of {self.source.name}."
            )
        for batch_size in (training.batch_size, self._eval_batch_size):
            self.workers.check_batch(batch_size)
        self.task.check_train_batches(training.images_of_update, self.workers.replicas)

    def _build(self):
        config, strategy = self.config, self.workers.strategy
        keras.utils.set_random_seed(config.training.seed)
        keras.config.set_floatx("float32")  # of losses and metrics, in every precision
        keras.config.set_dtype_policy(config.training.precision)
        with strategy.scope():
            weights = config.model.weights if self._is_new else None
            self.model = model_of(config, self.source, weights)
            if config.training.recompute_blocks:
                check_can_recompute(self.model)
            self.task.freeze(self.model)
            scales = self.task.learning_rate_scales(self.model)
            self.optimizer = optimizer_of(config, self.model, self.steps, scales)
            decay = config.training.ema_decay
            self.average = WeightAverage(self.model, decay) if decay else None
            loss = self.task.loss(self.model)
        self.jit = self.task.uses_xla(self.model)
        images = self.source.sizes["train"]
        self.state = TrainingState(config, self.model, self.optimizer, self.average, images)
        self._step = compiled_step(
            config, self.model, loss, self.optimizer, strategy, jit=self.jit, average=self.average
        )
        self._evaluator = self.task.evaluator(self.model, self.workers)
        if self.workers.is_chief:
            saved = model_of(config, self.source)
            self._keeper = RunKeeper(self.folder, config.training.keep_checkpoints, saved)

    def run(self):
        """Trains to the end, from where the folder's run is, and returns the results.

        A finished run is left as it is, but for a lost or damaged `model.keras`.

        Raises:
            TrainingInterrupted: After SIGINT, SIGTERM or SIGHUP, when the state is saved.
            OSError: If the folder is in use or cannot be written to, or its files are damaged.
            UnreadableImageError: If a validation image or too many training images are unreadable.
            FloatingPointError: If the loss is not finite.
            WorkerLostError: If another worker has ended.
        """
        with self.workers.must_live(), self.task.graph_options():
            if self.is_finished:
                classes = self.source.class_names, self.task.category_ids
                return self.workers.agree(
                    finished_results(self.folder, self._keeper, self.config, *classes)
                    if self.workers.is_chief
                    else None
                )
            with self.folder.locked() if self.workers.is_chief else contextlib.nullcontext():
                if self.workers.is_chief:
                    self.folder.create(self.config, self.source.class_names, self.task.category_ids)
                self._resume()
                self._train()
                with self._monitor.display.bar:
                    results = self._results()
                if self.workers.is_chief:
                    write_atomically(self.folder.results, json.dumps(results, indent=2) + "\n")
                return results

    def _resume(self):
        """Restores the newest state, if there is one, and whatever else of the run was lost."""
        arrays = self._keeper.newest() if self.workers.is_chief else None
        is_resumed = self.workers.agree(arrays is not None)
        if is_resumed:
            try:
                self.state.restore(self._shared(arrays))
            except ValueError as error:
                raise DamagedCheckpointError(
                    f"{self.folder.checkpoints} is not of this run: {error} Choose another "
                    "--output_dir."
                ) from error
        progress = self.state.progress = self.state.progress.for_workers(self.workers)
        if not is_resumed:
            return
        self.unreadable.positions |= progress.unreadable
        if not self.workers.is_chief:
            return
        print(f"Resuming {self._place()}.")
        # Where no epoch has been the best yet there is no model either.
        if progress.best and self._keeper.model_weights() is None:
            self._keeper.mend_model()
        self.folder.write_history(progress.history)

    def _shared(self, arrays):
        """The chief's {name: array} on every worker."""
        if self.workers.count == 1:
            return arrays
        return unpacked(self.workers.broadcast(packed(arrays) if self.workers.is_chief else b""))

    def _train(self):
        self._monitor = Monitor(
            self.config,
            self.folder,
            self.task.figures,
            self.steps,
            verbose=self.verbose,
            is_chief=self.workers.is_chief,
            profile=self._profile,
        )
        self._batch = None  # the last that was trained on
        self._last_save, self._seconds_of_save = time.monotonic(), 0.0
        if self.verbose:
            names = textwrap.shorten(", ".join(self.source.class_names), 80, placeholder=" ...")
            counts = "{train_images:,} training and {val_images:,} validation images of {classes}"
            print(f"{counts} classes: {{names}}.".format(**self._data(), names=names))
        # Other workers would take this one's end for a failure.
        self._interruption.has_nothing_to_save = self.workers.count == 1
        with self._interruption, self._monitor.watching():
            self._monitor.log.event(
                "start",
                epoch=self.state.progress.epoch + 1,
                step=self._number,
                model=self.config.model.name,
                parameters=self.model.count_params(),
                devices=[d.name for d in tf.config.list_logical_devices() if "XLA" not in d.name],
                workers=self.workers.count,
                replicas=self.workers.replicas,
                precision=self.config.training.precision,
                jit=self.jit,
                images_of_update=self.config.training.images_of_update,
                **self._data(),
                pit_keras=pit_keras.__version__,
                keras=keras.__version__,
                tensorflow=tf.__version__,
            )
            self._monitor.display.wait("Preparing the images")
            batches = iter(self.workers.batches(self._train_batches))
            self._evaluation_batches = self.workers.batches(self._validation_batches)
            while not self._is_trained:
                self._train_epoch(batches)
                self._end_epoch()
            self._monitor.display.wait("Closing the data")
            del batches  # which waits for what is being prefetched
        progress, patience = self.state.progress, self.config.training.patience
        if self.verbose and progress.epoch < self.config.training.epochs:
            print(f"Stopped early: none of the last {patience} epochs was better.")

    @property
    def _is_trained(self):
        """Whether all epochs are done, or the patience is over."""
        progress, training = self.state.progress, self.config.training
        waited = progress.epoch - progress.best_epoch
        is_patient = training.patience is None or waited < training.patience
        return progress.epoch >= training.epochs or not is_patient

    def _data(self):
        """How much there is to learn from, and what of it is left out."""
        source = self.source
        return {
            "train_images": source.sizes["train"],
            "val_images": source.sizes["val"],
            "classes": len(source.class_names),
            "left_out": dict(source.left_out),
        }

    def _train_epoch(self, batches):
        progress = self.state.progress
        self._monitor.begin_epoch(progress)
        for step in range(progress.step, self.steps):
            number = progress.epoch * self.steps + step
            self._monitor.profile.before(number)
            start = time.perf_counter()
            with self.unreadable.plain_errors():
                self._batch = next(batches)
            waited = time.perf_counter() - start
            metrics, (stops, saves) = self._do_step(number)
            stops |= self._is_enough(time.perf_counter() - start)
            is_scalable = metrics.get("loss_scale", 1.0) >= _LEAST_LOSS_SCALE
            if not is_scalable or not math.isfinite(metrics["loss"]):
                raise self._not_finite(step, is_scalable)
            if number == 0:
                self._monitor.show_images(self._local(self._batch["image"])[0], number)
            progress.sums = self._monitor.after_step(number, metrics, waited, self._learning_rate)
            progress.step = step + 1
            self._interruption.has_nothing_to_save = False
            every = self.config.training.checkpoint_every_steps
            if stops:
                self._interrupt()
            elif saves or (every and (number + 1) % every == 0):
                self._save()

    def _do_step(self, number):
        """One update: its metrics as numbers, and whether any worker wants to stop and to save."""
        minutes = self.config.training.checkpoint_every_minutes
        is_late = minutes is not None and time.monotonic() - self._last_save >= 60 * minutes
        requests = [bool(self._interruption.signal), is_late and self.workers.is_chief]
        metrics = self._step(
            self._batch,
            # TensorFlow would keep a copy of every Python number.
            tf.constant(np.array(number, np.int64)),
            tf.constant(requests, tf.float32),
        )
        stops, saves = (bool(value > 0) for value in metrics.pop("requests").numpy())
        if self.workers.count == 1:  # a signal during the step counts at once
            stops = bool(self._interruption.signal)
        return {name: float(value) for name, value in metrics.items()}, (stops, saves)

    def _interrupt(self):
        """Saves and ends the run, to be resumed."""
        self._save()
        reason = self._interruption.signal or "a signal to another worker"
        self._monitor.log.event("interrupted", step=self._number, signal=reason)
        raise TrainingInterrupted(f"{reason}: saved {self._place()}.")

    def _place(self):
        """Where the run is, in words."""
        progress, epochs = self.state.progress, self.config.training.epochs
        if not progress.step:
            return f"after epoch {progress.epoch} of {epochs}"
        step = f"step {progress.step} of {self.steps}"
        return f"in epoch {progress.epoch + 1} of {epochs}, after {step}"

    @property
    def _number(self):
        """Updates of the run so far."""
        return self.state.progress.epoch * self.steps + self.state.progress.step

    def _learning_rate(self):
        return float(self.optimizer.learning_rate)

    def _end_epoch(self):
        """Evaluates, notes the epoch, and saves it where that is due."""
        progress = self.state.progress
        evaluations = self._evaluate_or_save()
        row = self._row(evaluations)
        progress.history.append(row)
        if self.workers.is_chief:
            self.folder.must_be_there()
            self.folder.write_history(progress.history)
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        progress.epoch_positions = progress.positions
        self._monitor.end_epoch(row, self._number)
        by = self.config.training.best_metric
        ranks = {kind: self.task.figures.rank(each, by) for kind, each in evaluations.items()}
        better = max(ranks, key=ranks.get)
        # As long as a detector finds nothing, its last epoch is the best one.
        if ranks[better] > progress.best or not any(ranks[better]):
            progress.best = ranks[better]
            progress.best_epoch = progress.epoch
            progress.best_is_averaged = better == "averaged"
            if self.workers.is_chief:
                self._keeper.new_best = self.state.arrays(parts=("model", "average"))
        passed = time.monotonic() - self._last_save
        is_cheap = passed * _MOST_TIME_FOR_SAVING >= self._seconds_of_save
        if self.workers.agree(is_cheap or self._is_trained):
            self._save()

    def _evaluate_or_save(self):
        """The evaluations of an epoch; if they cannot be finished, the epoch is saved before."""
        self._note_progress()
        try:
            return self._evaluate_both(can_stop=self.workers.count == 1)
        except TrainingInterrupted:  # not saved there, where the weights may be the averaged ones
            self._interrupt()
        except UnreadableImageError as error:
            if self.workers.count > 1:
                raise
            self._save()
            raise UnreadableImageError(
                f"{error} The trained epoch is saved; repair the image and repeat the command."
            ) from error

    def _row(self, evaluations):
        """The row of the history of the epoch that was just trained."""
        progress, count = self.state.progress, self.workers.count
        used = self.config.training.images_of_update // count
        shards = [Shard(index, count, used) for index in range(count)]
        skipped = [
            shard.examples_before(end) - shard.examples_before(start) - self.steps * used
            for shard, start, end in zip(
                shards, progress.epoch_positions, progress.positions, strict=True
            )
        ]
        prefixes = {"raw": "val_", "averaged": "val_averaged_"}
        validation = {
            prefixes[kind] + name: evaluation[name]
            for kind, evaluation in evaluations.items()
            for name in self.task.figures.columns
        }
        return {
            "epoch": progress.epoch + 1,
            **self._monitor.epoch.means(),
            "learning_rate": self._learning_rate(),
            "unreadable_images": sum(skipped),
            **validation,
        }

    def _note_progress(self):
        """Collects in the progress what only the workers know."""
        progress = self.state.progress
        position = progress.positions[self.workers.index]
        if self._batch is not None:
            position = int(self._local(self._batch["position"])[-1][-1])
        reports = self.workers.gather([position, self.unreadable.until(position)])
        progress.positions = [position for position, _ in reports]
        for _, found in reports:
            progress.unreadable = {**found, **progress.unreadable}

    def _save(self):
        """Writes the model and the checkpoint of the best epoch, if it is new, and the state."""
        start = time.monotonic()
        self._note_progress()
        if self.workers.is_chief:
            self.folder.must_be_there()
            self.folder.write_unreadable(self.state.progress.unreadable)
            with self._monitor.display.waiting("Writing a checkpoint"):
                path = self._keeper.save(self._number, {**self.state.arrays(), **self._names()})
            seconds = round(time.monotonic() - start, 3)
            name = str(path.relative_to(self.folder.path))
            self._monitor.log.event("checkpoint", step=self._number, file=name, seconds=seconds)
        self._last_save = time.monotonic()
        self._seconds_of_save = self._last_save - start

    def _names(self):
        """The names of the classes as `RunFolder.held` reads them."""
        texts = {"classes": class_names_text(self.source.class_names)}
        if self.task.category_ids is not None:
            texts["category_ids"] = " ".join(map(str, self.task.category_ids))
        return {name: np.array(text) for name, text in texts.items()}

    def _not_finite(self, step, is_scalable):
        """The error for a loss that is not finite; the batch's examples are listed in a file."""
        ids = [int(example) for part in self._local(self._batch["id"]) for example in part]
        mine = {example: self.source.describe("train", example) for example in ids}
        names = {k: v for found in self.workers.gather(mine) for k, v in found.items()}
        kept = "nothing was saved"
        if self.workers.is_chief:
            self.folder.write_not_finite(names)
            if self._keeper.paths:
                kept = f"the last checkpoint is {self._keeper.paths[-1]}"
        problem, remedy = "The loss is not finite", "a lower --config.optimizer.learning_rate"
        if not is_scalable:
            problem = f"Gradients overflow float16 even with the loss scale {_LEAST_LOSS_SCALE:g}"
            remedy = "--precision=mixed_bfloat16"
        return FloatingPointError(
            f"{problem} at step {step + 1} of {self.steps} in epoch "
            f"{self.state.progress.epoch + 1}. Try {remedy} in another --output_dir. The batch's "
            f"{len(names)} examples are listed in {self.folder.not_finite}; {kept}."
        )

    def _local(self, values):
        """A batch's values on this worker's replicas, as arrays, in order."""
        return [part.numpy() for part in self.workers.strategy.experimental_local_results(values)]

    def _train_batches(self, **share):
        return self.task.train_batches(
            batch_size=self.config.training.images_of_update,
            seed=self.config.training.seed,
            start=self.state.progress.positions[self.workers.index],
            unreadable=self.unreadable,
            **share,
        )

    def _validation_batches(self, **share):
        return self.task.evaluation_batches(
            batch_size=self._eval_batch_size,
            unreadable=self._unreadable_in_evaluation,
            **share,
        )

    def _evaluate_both(self, can_stop=False):
        """Evaluates the weights and, where there is one, their average: {"raw", "averaged"}."""
        evaluations = {"raw": self._evaluate(can_stop)}
        if self.average:
            with self.average.in_place():
                evaluations["averaged"] = self._evaluate(can_stop)
        return evaluations

    def _evaluate(self, can_stop=False):
        batches = -(-self.source.sizes["val"] // self._eval_batch_size)
        shows = self._monitor.begin_evaluation(batches)

        def after_batch(done):
            shows(done)
            if can_stop and self._interruption.signal:
                raise TrainingInterrupted

        with self._unreadable_in_evaluation.plain_errors():
            return self._evaluator(self._evaluation_batches, after_batch)

    def _results(self):
        """Exact results of `model.keras` as it was written, read back from its file."""
        weights, best = None, None
        if self.workers.is_chief:
            self._monitor.display.wait("Reading model.keras back")
            weights = self._keeper.model_weights()
            if weights is None:
                self._keeper.mend_model()
                weights = self._keeper.model_weights()
            best = self._keeper.best()
        progress, both = self.state.progress, {}
        if self.average:
            both["weights"] = "averaged" if progress.best_is_averaged else "raw"
            if self.workers.agree(best is not None):
                self.state.assign(self._shared(best))
                both |= self._evaluate_both()
            elif self.workers.is_chief:
                print("best.npz is lost, so results.json lacks raw and averaged results.")
        weights = self._shared({f"{n:04d}": value for n, value in enumerate(weights or [])})
        self.model.set_weights([weights[name] for name in sorted(weights)])
        metrics = self._evaluate()
        results = {
            **metrics,
            **both,
            "split": "val",
            "dataset": self.config.data.dataset,
            "model": self.config.model.name,
            "recipe": self.config.recipe,
            "best_epoch": progress.best_epoch,
            "epochs": progress.epoch,
            **self._data(),
            **self.task.results(metrics),
            "unreadable_images": len(progress.unreadable),
        }
        self._monitor.log.event("end", **results)
        return results


def check_validation_images(source):
    """Reads the validation images for some seconds: an unreadable one would end the first epoch."""
    if not source.is_encoded:
        return
    unreadable, start = UnreadableImages(), time.monotonic()
    with unreadable.plain_errors():
        for _ in load_images(source.scan("val"), source, "val", unreadable):
            if time.monotonic() - start > _SECONDS_FOR_VALIDATION_IMAGES:
                return
