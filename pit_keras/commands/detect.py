"""Trains the paper's detector, DETR on a backbone of choice, or resumes an unfinished run.

    pit-keras detect --model=detr_pit_s --dataset=coco:PATH --output_dir=runs/x

PATH holds train.json and val.json in COCO's form with the images in train/ and val/, or COCO itself
as it is unpacked. The backbone starts from --weights: imagenet, a classifier's run folder or .keras
file, or none. --image_size is the largest short and the largest long side, 400,600 as in the paper.
Every field of the recipe is a flag too, --config.detection.multi_scale=false; a run's config.json
lists them all. --preview=2 draws two batches of training images with their boxes and stops.
"""

import functools

from pit_keras.commands.train import run
from pit_keras.commands.training_flags import DETECT, add_arguments, training_parser

__all__ = ["add_arguments", "parse", "run"]

parse = training_parser(DETECT, __doc__)
add_arguments = functools.partial(add_arguments, script=DETECT)
