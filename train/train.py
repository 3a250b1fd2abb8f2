"""Trains a classifier with one of the paper's settings, or resumes an unfinished run.

    python train/train.py --recipe=cutmix --model=pit_ti --dataset=folder:PATH --output_dir=runs/x

Every field of a recipe is a flag too, --config.optimizer.learning_rate=1e-3; a run's config.json
lists them all. pit_keras/config/recipes.py says what accuracy to expect. --preview=2 draws two
batches of training images and stops.
"""

import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Until training begins, Ctrl-C has nothing to save: it ends the program without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from absl import app

from pit_keras.commands import train as script
from pit_keras.commands.training_flags import training_parser

if __name__ == "__main__":
    app.run(script.main, flags_parser=training_parser())
