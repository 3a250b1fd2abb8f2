"""Trains families of networks at equal cost, and draws what pooling does (figures 2 and 3).

    pit-keras sweep --families=pit,vit --macs=2e6,4e6,8e6,16e6 --seeds=3 --recipe=vanilla \\
        --dataset=folder:PATH --image_size=32 --patch_size=4 --epochs=10 --output_dir=runs/sweep

Every network is a run folder in the output folder. sweep.csv and sweep.png, rewritten after each
run, show the finished runs after their last epoch. The same command resumes a sweep, and one with
more costs or seeds adds to it. The flags of `pit-keras train` that a sweep does not decide itself
go to every run.
"""

import functools
import gc
import pathlib
import sys

from absl import flags

from pit_keras.commands import sweep_flags, training_flags
from pit_keras.commands.arguments import check_data_set
from pit_keras.commands.startup import typed_command
from pit_keras.errors import (
    check_can_write,
    end_at_once,
    exit_with_one_sentence,
    undone_at_the_end,
)

FLAGS = flags.FLAGS
parse = training_flags.training_parser(sweep_flags.SWEEP, __doc__)
add_arguments = functools.partial(training_flags.add_arguments, script=sweep_flags.SWEEP)


def run(arguments):
    with exit_with_one_sentence():
        options = sweep_flags.options(FLAGS)
        check_output_dir(pathlib.Path(FLAGS.output_dir))
        check_data_set(FLAGS.dataset)
    # Imported here, since a wrong flag should not wait for it.
    from pit_keras.measure.equal_cost import plan_sweep
    from pit_keras.training.tasks import open_source_of
    from pit_keras.training.workers import join_workers

    with exit_with_one_sentence():
        config = options["config_of"]("pit_ti")
        workers = join_workers(config.training.distribute)
        source = open_source_of(config, FLAGS.manual_dir)
        planned = plan_sweep(**options, source=source, output_dir=FLAGS.output_dir)
    with undone_at_the_end():
        try:
            train(planned, source, workers)
        except KeyboardInterrupt:  # where a run has nothing to save
            print_how_to_resume("Interrupted.")
            sys.exit(130)


def check_output_dir(folder):
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; --output_dir must be a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("sweep.csv", "sweep.png"):
        check_can_write(folder / name, "--output_dir")


def train(planned, source, workers):
    """Trains what is not finished; rewrites the table and the picture after each run."""
    from pit_keras.data.unreadable import UnreadableImageError
    from pit_keras.training.interruption import TrainingInterrupted

    failures = []
    for number, each in enumerate(planned, 1):
        if not each.is_done:
            print(f"Run {number} of {len(planned)}: {each.described}.", flush=True)
            with exit_with_one_sentence(UnreadableImageError, OSError, ValueError):
                try:
                    train_one(each, source, workers)
                except FloatingPointError as error:
                    failures.append(f"{each.folder.path}: {error}")
                except TrainingInterrupted as interrupted:
                    print_how_to_resume(interrupted)
                    end_at_once()
        with exit_with_one_sentence():
            summarise(planned)
    print(f"sweep.csv and sweep.png are in {FLAGS.output_dir}.")
    if failures:
        sys.exit("error: these runs failed. " + " ".join(failures))


def print_how_to_resume(why):
    print(f"{why} To resume the sweep:\n    {typed_command()}", flush=True)


def train_one(run, source, workers):
    """Trains one network and frees its memory."""
    import keras

    from pit_keras.plots.pictures import draw_history
    from pit_keras.training.trainer import Trainer

    also = {"workers": workers, "save_on_signal": FLAGS.save_on_signal}
    results = Trainer(run.config, source, run.folder.path, **also).run()
    draw_history(run.folder.history, run.folder.curves, results["best_epoch"])
    keras.backend.clear_session()
    gc.collect()


def summarise(planned):
    from pit_keras.measure.equal_cost import sweep_rows
    from pit_keras.plots.paper_figures import draw_sweep
    from pit_keras.runs.run_folder import csv_text, write_atomically

    rows = sweep_rows(planned)
    if rows:
        write_atomically(pathlib.Path(FLAGS.output_dir) / "sweep.csv", csv_text(rows))
        draw_sweep(rows, pathlib.Path(FLAGS.output_dir) / "sweep.png")
