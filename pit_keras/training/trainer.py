"""The training loop. It is not `Model.fit`, which under `MirroredStrategy` fails with compiled
steps and gives all replicas the same dropout; Keras' callbacks are driven all the same.
"""

import contextlib
import json
import math
import sys
import time
import warnings

import keras
import tensorflow as tf
from keras import ops

from pit_keras.data.pipeline import evaluation_batches, steps_per_epoch, train_batches
from pit_keras.data.unreadable import UnreadableImages, load_images
from pit_keras.evaluation.classification import Evaluator
from pit_keras.evaluation.trained_model import DAMAGED_FILE_ERRORS
from pit_keras.models import create_model, tracing_for_xla
from pit_keras.training.config import validate
from pit_keras.training.fine_tuning import all_trainable, freeze, learning_rate_scales
from pit_keras.training.losses import soft_cross_entropy
from pit_keras.training.optimizer import AdamP, weight_decay_exclusions
from pit_keras.training.run_folder import (
    RunFolder,
    explained,
    save_model_atomically,
    write_atomically,
)
from pit_keras.training.schedule import WarmupCosine, scaled_learning_rate
from pit_keras.training.state import TrainingState


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
        # Callbacks look for `model.optimizer`. The model that is saved should not carry it, so
        # they get another model of the same layers.
        self._watched = keras.Model(self.model.inputs, self.model.outputs, name=self.model.name)
        self._watched.optimizer = self.optimizer
        self._step = compiled_step(self.model, self.optimizer, self.strategy, config.training)
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
                self.folder, self.model, self.optimizer, self.config.training.keep_checkpoints
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
            logs, position = self._train_epoch(batches, callbacks)
            evaluation = self._evaluate()
            logs |= {f"val_{name}": evaluation[name] for name in ("loss", "top1", "top5")}
            with explained(self.folder.path):
                callbacks.on_epoch_end(epoch, logs)
            self.folder.write_unreadable(self.unreadable.until(position))
            state.epoch.assign(epoch + 1)
            state.position.assign(position)
            if evaluation["top1"] > float(state.best):
                state.best.assign(evaluation["top1"])
                state.best_epoch.assign(epoch)
                self._save_model()
                state.save_best()
            state.save()
        callbacks.on_train_end()

    def _save_model(self):
        with all_trainable(self.model):
            save_model_atomically(self.model, self.folder.model)

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
        self._save_model()
        print(f"{self.folder.model} is written anew from the checkpoint of the best epoch.")

    def _train_epoch(self, batches, callbacks):
        """One epoch; returns its logs and the position of the data stream after it."""
        sums = {"loss": 0.0, "top1": 0.0}
        start = time.perf_counter()
        for step in range(self.steps):
            callbacks.on_train_batch_begin(step)
            with self.unreadable.plain_errors():
                batch = next(batches)
            for name, value in self._step(batch["image"], batch["label"]).items():
                sums[name] += float(value)
            if not math.isfinite(sums["loss"]):
                raise FloatingPointError(
                    f"The loss is not finite at step {step + 1} of {self.steps}; the last "
                    "checkpoint is whole. A lower --config.optimizer.learning_rate may help."
                )
            logs = {name: total / (step + 1) for name, total in sums.items()}
            callbacks.on_train_batch_end(step, logs)
        seconds = time.perf_counter() - start
        last_replica = self.strategy.experimental_local_results(batch["position"])[-1]
        position = int(last_replica[-1])
        logs["learning_rate"] = float(self.optimizer.learning_rate)
        logs["images_per_second"] = self.steps * self.config.training.batch_size / seconds
        logs["unreadable_images"] = len(self.unreadable.until(position))
        return logs, position

    def _train_batches(self, state):
        return train_batches(
            self.source,
            self.config.data,
            batch_size=self.config.training.batch_size,
            seed=self.config.training.seed,
            start=int(state.position),
            unreadable=self.unreadable,
        )

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
        else:
            self.model.set_weights(weights)
        evaluation = self._evaluate()
        return {
            **evaluation,
            "split": "val",
            "dataset": self.config.data.dataset,
            "model": self.config.model.name,
            "recipe": self.config.recipe,
            "best_epoch": int(state.best_epoch),
            "epochs": self.config.training.epochs,
            "eval_crop": self.config.data.eval_crop,
            "unreadable_images": len(self.unreadable.until(int(state.position))),
        }


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


def make_strategy(training):
    """The distribution strategy of a configuration.

    Raises:
        ValueError: If the replicas do not divide the batch.
    """
    if training.distribute == "none":
        return tf.distribute.get_strategy()
    strategy = tf.distribute.MirroredStrategy()
    replicas = strategy.num_replicas_in_sync
    for batch_size in (training.batch_size, training.eval_batch_size or training.batch_size):
        if batch_size % replicas:
            nearest = max(1, round(batch_size / replicas)) * replicas
            raise ValueError(
                f"A batch of {batch_size} does not divide among {replicas} replicas; the nearest "
                f"that does is {nearest}."
            )
    return strategy


def model_of(config, source, weights=None):
    """The model that a configuration describes, with as many classes as the data has.

    Args:
        config: A `Config`.
        source: The data.
        weights: What the model starts from, see `create_model`.
    """
    overrides = {
        name: getattr(config.model, name)
        for name in ("patch_size", "stride", "head_dim", "depths", "heads", "base_width")
        if getattr(config.model, name) is not None
    }
    with _printed_warnings():
        return create_model(
            config.model.name,
            classes=len(source.class_names),
            input_shape=(*config.data.image_size, 3),
            weights=weights,
            drop_rate=config.model.drop_rate,
            attention_drop_rate=config.model.attention_drop_rate,
            drop_path_rate=config.model.drop_path_rate,
            **overrides,
        )


@contextlib.contextmanager
def _printed_warnings():
    """Prints as plain sentences what is said of weights that were adapted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        print(warning.message)


def optimizer_of(config, model, steps):
    """AdamP with warm-up and cosine, built for the model; loss scaling for float16."""
    settings = config.optimizer
    schedule = WarmupCosine(
        base=scaled_learning_rate(settings.learning_rate, config.training.batch_size),
        steps=config.training.epochs * steps,
        warmup_steps=round(settings.warmup_epochs * steps),
        warmup_start=settings.warmup_learning_rate,
        minimum=settings.min_learning_rate,
    )
    optimizer = AdamP(
        schedule,
        beta_1=settings.beta_1,
        beta_2=settings.beta_2,
        epsilon=settings.epsilon,
        weight_decay=settings.weight_decay,
        delta=settings.delta,
        wd_ratio=settings.wd_ratio,
    )
    optimizer.exclude_from_weight_decay(var_list=weight_decay_exclusions(model.trainable_variables))
    if settings.layer_decay < 1:
        optimizer.scale_learning_rates(learning_rate_scales(model, settings.layer_decay))
    if config.training.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def compiled_step(model, optimizer, strategy, training):
    """The training step, (images, mixed one-hot labels) of one global batch -> its metrics.

    `loss` is the mean over the batch, `top1` the share of images whose largest logit is the class
    with the largest share of the label.
    """
    variables = model.trainable_variables

    @tf.function(jit_compile=training.jit)
    def gradients(images, labels):
        with tracing_for_xla(training.jit), tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = soft_cross_entropy(labels, logits, training.label_smoothing)
            # Sums over replicas follow, so each replica divides by the global batch.
            loss = ops.sum(losses) / training.batch_size
            scaled_loss = optimizer.scale_loss(loss)
        hits = ops.argmax(logits, axis=-1) == ops.argmax(labels, axis=-1)
        top1 = ops.sum(ops.cast(hits, "float32")) / training.batch_size
        return tape.gradient(scaled_loss, variables), {"loss": loss, "top1": top1}

    def update(values):
        optimizer.apply(values, variables)

    if training.distribute == "none":
        # Replicas talk to each other in the update, and a function of its own may not do that.
        update = tf.function(update, jit_compile=training.jit)

    def replica_step(images, labels):
        values, metrics = gradients(images, labels)
        update(values)
        return metrics

    @tf.function
    def step(images, labels):
        metrics = strategy.run(replica_step, args=(images, labels))
        return tf.nest.map_structure(
            lambda value: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None), metrics
        )

    return step


def history_rows(path):
    """The lines of `history.csv` that are whole rows, its header left out."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [line for line in file if line.partition(",")[0].isdigit() and line.endswith("\n")]


def keep_history_rows(path, epochs):
    """Removes the rows of epochs that no checkpoint holds and that will be run again.

    Returns:
        How many rows stay.
    """
    if not path.exists():
        return 0
    kept = [row for row in history_rows(path) if int(row.partition(",")[0]) < epochs]
    with path.open(newline="") as file:
        header = file.readline()
    write_atomically(path, "".join([header, *kept]) if kept else "")
    return len(kept)
