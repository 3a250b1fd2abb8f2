"""Trains a classifier with one of the paper's settings, or resumes an unfinished run.

    pit-keras train --recipe=cutmix --model=pit_ti --dataset=folder:PATH --output_dir=runs/x

Every field of a recipe is a flag too, --config.optimizer.learning_rate=1e-3; a run's config.json
lists them all. --preview=2 draws two batches of training images and stops.
"""

import functools

from absl import flags

from pit_keras.commands import training_flags
from pit_keras.commands.arguments import check_data_set
from pit_keras.commands.startup import typed_command
from pit_keras.errors import exit_with_one_sentence
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
    # Imported here, since a wrong flag should not wait for it.
    from pit_keras.training.workers import WorkerLostError

    with exit_with_one_sentence(ValueError, OSError, ImportError, WorkerLostError):
        trainer = prepare(config, profile)
    if trainer is not None:
        train(trainer)


def prepare(config, profile):
    """The trainer; None if only a preview was asked for."""
    from pit_keras.runs.run_folder import RunFolder
    from pit_keras.training.assembly import check_weights
    from pit_keras.training.preview import draw_preview
    from pit_keras.training.tasks import open_source_of
    from pit_keras.training.teacher import check_teacher
    from pit_keras.training.trainer import Trainer
    from pit_keras.training.workers import join_workers

    # The other workers have to be joined before TensorFlow does anything.
    workers = join_workers(config.training.distribute, FLAGS.workers, FLAGS.worker)
    if config.distillation.kind != "none":
        check_teacher(config)
    folder = RunFolder(FLAGS.output_dir)
    if workers.is_chief and not (folder.begun or folder.finished):  # else it has the weights
        check_weights(config)
    source = open_source_of(config, FLAGS.manual_dir)
    if FLAGS.preview:
        picture = draw_preview(config, source, FLAGS.preview, FLAGS.output_dir, workers.replicas)
        print(f"The first training batches are in {picture}; nothing was trained.")
        return None
    also = {"profile": profile, "save_on_signal": FLAGS.save_on_signal}
    return Trainer(config, source, FLAGS.output_dir, workers=workers, **also)


def train(trainer):
    """Trains, draws the curves and prints the results."""
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
            return
    if was_finished or not trainer.workers.is_chief:
        return
    with exit_with_one_sentence():
        draw_history(trainer.folder.history, trainer.folder.curves)
    print(
        f"Best: epoch {results['best_epoch'] + 1} of {results['epochs']}, "
        f"{in_words(trainer.task.figures.results, results, 4, ', ')} on {results['images']} "
        "validation images."
    )
    if "top1_interval" in results and results["images"] < MANY_IMAGES:
        right = round(results["top1"] * results["images"])
        low, high = (f"{100 * bound:.0f}" for bound in results["top1_interval"])
        print(f"{right} of {results['images']} right: 95% interval {low} to {high}%.")
    if "weights" in results:
        print(f"model.keras has the {results['weights']} weights of that epoch, the better ones.")
    print(f"Everything is in {FLAGS.output_dir}.")
