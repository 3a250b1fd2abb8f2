"""Trains a classifier with one of the paper's settings, and carries an unfinished run on.

    python train/train.py --recipe=cutmix --model=pit_ti --dataset=folder:PATH --output_dir=runs/x

Every value of a recipe is a flag too, --config.optimizer.learning_rate=1e-3; a run's config.json
lists them all. pit_keras/config/recipes.py says what accuracy to expect. --preview=2 draws two
batches of training images and stops.
"""

import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Until training begins, Ctrl-C has nothing to say: it ends the program without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from absl import app

from pit_keras.commands import train as script
from pit_keras.commands import training_flags

if __name__ == "__main__":
    app.run(script.main, flags_parser=training_flags.parse_or_exit)
