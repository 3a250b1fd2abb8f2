"""Trains a classifier with one of the paper's settings, and carries an unfinished run on.

    python train/train.py --recipe=cutmix --model=pit_ti --dataset=folder:photos \\
        --output_dir=runs/photos --config.training.batch_size=64

`pit_keras.training.recipes` says what to expect; `--helpshort` lists the flags, and every value of
a recipe is a flag too: `--config.optimizer.learning_rate=1e-3`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags

from pit_keras.errors import exit_with_one_sentence
from pit_keras.training.command_line import config_from_flags, define_training_flags, parse_flags


def main(_):
    with exit_with_one_sentence():
        config = config_from_flags(flags.FLAGS)
        from pit_keras.data.sources import open_source
        from pit_keras.training.trainer import Trainer

        data = config.data
        source = open_source(data.dataset, data_dir=data.data_dir, holdout=data.holdout)
        trainer = Trainer(config, source, flags.FLAGS.output_dir)
        if trainer.folder.finished:
            print(f"The run in {flags.FLAGS.output_dir} is finished; nothing is changed.")
    results = trainer.run()
    print(f"Top-1 {results['top1']:.4f}, top-5 {results['top5']:.4f} on {results['images']} images.")
    print(f"Everything is in {flags.FLAGS.output_dir}.")


if __name__ == "__main__":
    define_training_flags()
    app.run(main, flags_parser=parse_flags)
