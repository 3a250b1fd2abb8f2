"""Writes a generated data set for object detection: handwritten digits on photographs.

    python train/digit_scenes.py --train_images=2000 --val_images=500 --output_dir=DIR

It shows in minutes, without COCO, that a detector learns: scikit-learn's scans of digits, enlarged
to 16 to 40% of the short side, coloured and scattered over parts of its two photographs, 1 to 6 in
an image. --most_digits and --sides choose fewer and larger ones; --white, white digits on darker
photographs, is the easiest set. Validation images have other scans and other parts of the
photographs. The set is in COCO's form, --dataset=coco:DIR.

    python train/digit_scenes.py --classification --train_images=10000 --output_dir=DIR

writes one digit an image in class folders, --dataset=folder:DIR, to train the backbone as a
classifier first.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags

from pit_keras.commands.absl_flags import image_size_of, numbers_of, parse_or_exit
from pit_keras.errors import at_once, exit_with_one_sentence

FLAGS = flags.FLAGS
flags.DEFINE_string("output_dir", None, "Folder to write to, new or empty.", required=True)
flags.DEFINE_integer("train_images", 2000, "Number of training images.", lower_bound=1)
flags.DEFINE_integer("val_images", 500, "Number of validation images.", lower_bound=1)
flags.DEFINE_list("image_size", ["128"], "Side of the images in pixels, or height,width.")
flags.DEFINE_integer("most_digits", 6, "Most digits of an image; the fewest are 1.", lower_bound=1)
flags.DEFINE_list("sides", ["0.16", "0.40"], "Smallest, largest digit over the short side.")
flags.DEFINE_bool("white", False, "White digits on darker photographs.")
flags.DEFINE_integer("seed", 0, "Another seed gives other images.", lower_bound=0)
flags.DEFINE_bool("classification", False, "One digit an image in class folders, to classify.")


def main(arguments):
    if arguments[1:]:
        sys.exit(f"error: {arguments[1]!r} is no flag; flags begin with two dashes.")
    with at_once(), exit_with_one_sentence():
        image_size = image_size_of(FLAGS.image_size)
        # Imported here, since a wrong flag should not wait for it.
        from pit_keras.data.digit_scenes import Look, write_digit_classes, write_digit_scenes

        sides = numbers_of("sides", FLAGS.sides)
        if len(sides) != 2:
            raise ValueError("--sides must be two numbers, such as 0.16,0.40.")
        look = Look(FLAGS.most_digits, sides, FLAGS.white)
        write = write_digit_classes if FLAGS.classification else write_digit_scenes
        images = {"train": FLAGS.train_images, "val": FLAGS.val_images}
        progress = sys.stdout.isatty()
        write(FLAGS.output_dir, images, image_size, FLAGS.seed, look=look, progress=progress)
    form = "folder" if FLAGS.classification else "coco"
    print(f"Written: --dataset={form}:{FLAGS.output_dir}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_or_exit)
