"""Trains a classifier with one of the recipes, or resumes an unfinished run.

    pit-keras train --recipe=photos --model=pit_ti --dataset=folder:PATH --output_dir=runs/x

Every field of a recipe is a flag too, --config.optimizer.learning_rate=1e-3; a run's config.json
lists them all. --preview=2 draws two batches of training images and stops. --folds=5 trains five
runs, each with another fifth of the images for validation.
"""

import functools
import pathlib

from absl import flags

from pit_keras.commands import training_flags
from pit_keras.commands.arguments import check_data_set
from pit_keras.commands.startup import typed_command
from pit_keras.config.fields import leaves, set_field
from pit_keras.errors import end_at_once, exit_with_one_sentence
from pit_keras.runs.metric_names import in_words

FLAGS = flags.FLAGS
MANY_IMAGES = 1000  # of validation, where chance moves top-1 by less than three points
parse = training_flags.training_parser(training_flags.TRAIN, __doc__)
add_arguments = functools.partial(training_flags.add_arguments, script=training_flags.TRAIN)


def run(arguments):
    """Trains what the flags say, or draws a preview of it."""
    with exit_with_one_sentence():
        check_data_set(FLAGS.dataset)
        config = training_flags.config_from_flags(FLAGS)
        profile = training_flags.profiled_steps(FLAGS.profile)
        folds = _checked_folds(config)
    if folds:
        _train_folds(config, profile, folds)
        return
    trainer = prepare(config, profile, FLAGS.output_dir)
    if trainer is not None:
        train(trainer)


def _checked_folds(config):
    folds = FLAGS.folds if "folds" in FLAGS else None
    if folds and (FLAGS.preview or config.data.fold):
        raise ValueError("--folds makes several runs; leave out --preview and --config.data.fold.")
    if folds and config.training.distribute == "multi_worker":
        raise ValueError("--distribute with --folds must be none or mirrored.")
    return folds


def prepare(config, profile, output_dir):
    """The trainer; None if only a preview was asked for."""
    # Imported here, since a wrong flag should not wait for it.
    from pit_keras.runs.run_folder import RunFolder
    from pit_keras.training.assembly import check_weights
    from pit_keras.training.preview import draw_preview
    from pit_keras.training.tasks import open_source_of
    from pit_keras.training.teacher import check_teacher
    from pit_keras.training.trainer import Trainer
    from pit_keras.training.workers import WorkerLostError, join_workers
    from pit_keras.waits import waiting

    with exit_with_one_sentence(ValueError, OSError, ImportError, WorkerLostError):
        # The other workers have to be joined before TensorFlow does anything.
        workers = join_workers(config.training.distribute, FLAGS.workers, FLAGS.worker)
        if config.distillation.kind != "none":
            check_teacher(config)
        folder = RunFolder(output_dir)
        training_flags.keep_warmup(FLAGS, config, folder)
        if workers.is_chief and not (folder.begun or folder.finished):  # else it has the weights
            check_weights(config)
        with waiting(f"Opening {config.data.dataset}"):
            source = open_source_of(config, FLAGS.manual_dir)
        if config.recipe == "photos":
            config = _suited(config, source, folder, workers)
        _take_sizes(config, folder, workers)
        if FLAGS.preview:
            with waiting("Drawing the preview"):
                picture = draw_preview(config, source, FLAGS.preview, output_dir, workers.replicas)
            print(f"The first training batches are in {picture}; nothing was trained.")
            return None
        also = {"profile": profile, "save_on_signal": FLAGS.save_on_signal}
        return Trainer(config, source, output_dir, workers=workers, **also)


def _suited(config, source, folder, workers):
    """The configuration of `photos` that suits the images and the weights that can be had."""
    from pit_keras.training.assembly import weights_in_reach

    data = {"images": source.sizes["train"]}
    if training_flags.given_weights(FLAGS) is None and not FLAGS.preview:
        is_old = folder.begun or folder.finished

        def weights():
            return folder.read_config().model.weights if is_old else weights_in_reach(FLAGS.model)

        data["weights"] = workers.agree(weights() if workers.is_chief else None)
    suited = training_flags.config_from_flags(FLAGS, **data)
    suited.data.fold = config.data.fold
    return suited


def _take_sizes(config, folder, workers):
    """Gives the model the sizes of the run that its weights come from, where none are set."""
    from pit_keras.training.assembly import sizes_of_weights

    sizes = workers.agree(sizes_of_weights(config, folder) if workers.is_chief else None)
    for path, size in leaves({"model": sizes}):
        set_field(config, path, size)
    if sizes and workers.is_chief:
        words = ", ".join(f"{name} {size}" for name, size in sizes.items())
        print(f"As in {config.model.weights}: {words}.")


def train(trainer):
    """Trains, draws the curves and prints the results, which it returns."""
    from pit_keras.data.unreadable import UnreadableImageError
    from pit_keras.plots.pictures import draw_history
    from pit_keras.training.interruption import TrainingInterrupted
    from pit_keras.training.workers import WorkerLostError

    was_finished = trainer.is_finished
    with exit_with_one_sentence(UnreadableImageError, OSError, FloatingPointError, WorkerLostError):
        try:
            results = trainer.run()
        except TrainingInterrupted as interrupted:
            print(f"{interrupted} To resume:\n    {typed_command()}")
            end_at_once()
    if was_finished or not trainer.workers.is_chief:
        return results
    with exit_with_one_sentence():
        draw_history(trainer.folder.history, trainer.folder.curves, results["best_epoch"])
    print(
        f"Best: epoch {results['best_epoch']} of {results['epochs']}, "
        f"{in_words(trainer.task.figures.results, results, 4, ', ')} on {results['images']} "
        "validation images."
    )
    if "top1_interval" in results and results["images"] < MANY_IMAGES:
        right = round(results["top1"] * results["images"])
        low, high = (f"{100 * bound:.0f}" for bound in results["top1_interval"])
        print(f"{right} of {results['images']} right: 95% interval {low} to {high}%.")
    if "weights" in results:
        print(f"model.keras has the {results['weights']} weights of that epoch, the better ones.")
    print(f"Everything is in {trainer.folder.path}.")
    return results


def _train_folds(config, profile, folds):
    """Trains one run for each fold, resumes what is unfinished, and prints the mean."""
    import keras

    from pit_keras.runs.folds import write_folds

    output_dir, results = pathlib.Path(FLAGS.output_dir), []
    for number in range(1, folds + 1):
        print(f"Fold {number} of {folds}:", flush=True)
        config.data.fold = (number, folds)
        trainer = prepare(config, profile, output_dir / f"fold-{number}")
        results.append(train(trainer))
        keras.backend.clear_session()
    with exit_with_one_sentence():
        summary = write_folds(output_dir, results)
    means, deviations = summary["mean"], summary["deviation"]
    print(
        f"Over {folds} folds: top-1 {means['top1']:.4f} +- {deviations['top1']:.4f}, loss "
        f"{means['loss']:.4f} +- {deviations['loss']:.4f}. All is in {output_dir}/folds.json."
    )
