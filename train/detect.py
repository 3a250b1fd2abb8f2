"""Trains the paper's detector, DETR on a backbone of choice, and carries an unfinished run on.

    python train/detect.py --model=detr_pit_s --dataset=coco:PATH --output_dir=runs/x

PATH holds train.json and val.json in COCO's form with the images in train/ and val/, or COCO itself
as it is unpacked. The backbone starts from --weights: imagenet, a classifier's run folder or .keras
file, or none. --image_size is the largest short and the largest long side, 400,600 as in the paper.
Every value of the recipe is a flag too, --config.detection.multi_scale=false; a run's config.json
lists them all. --preview=2 draws two batches of training images with their boxes and stops.
"""

import functools
import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Until training begins, Ctrl-C has nothing to say: it ends the program without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from absl import app

from pit_keras.commands import train as script
from pit_keras.commands import training_flags

if __name__ == "__main__":
    parse = functools.partial(training_flags.parse_or_exit, script=training_flags.DETECT)
    app.run(script.main, flags_parser=parse)
