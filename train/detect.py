"""Trains the paper's detector, DETR on a backbone of choice, or resumes an unfinished run.

    python train/detect.py --model=detr_pit_s --dataset=coco:PATH --output_dir=runs/x

PATH holds train.json and val.json in COCO's form with the images in train/ and val/, or COCO itself
as it is unpacked. The backbone starts from --weights: imagenet, a classifier's run folder or .keras
file, or none. --image_size is the largest short and the largest long side, 400,600 as in the paper.
Every field of the recipe is a flag too, --config.detection.multi_scale=false; a run's config.json
lists them all. --preview=2 draws two batches of training images with their boxes and stops.
"""

import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Until training begins, Ctrl-C has nothing to save: it ends the program without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from absl import app

from pit_keras.commands import train as script
from pit_keras.commands.training_flags import DETECT, training_parser

if __name__ == "__main__":
    app.run(script.main, flags_parser=training_parser(DETECT))
