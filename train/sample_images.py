"""Writes some images of a data set as PNG files, named by class, to try a model on.

python train/sample_images.py --dataset=digits --count=24 --output_dir=runs/demo/digits
"""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags
from PIL import Image

from pit_keras.commands.absl_flags import parse_or_exit
from pit_keras.errors import at_once, exit_with_one_sentence

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "digits, folder:PATH or a TFDS name.", required=True)
flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data sets.")
flags.DEFINE_float("holdout", 0.1, "Share held out where the data set has no validation split.")
flags.DEFINE_enum("split", "val", ["train", "val"], "Where the images are taken from.")
flags.DEFINE_integer("count", 24, "Number of images.", lower_bound=1)
flags.DEFINE_string("output_dir", None, "Folder to write to.", required=True)


def main(_):
    with at_once(), exit_with_one_sentence():
        from pit_keras.data.labelled_images import open_source
        from pit_keras.data.unreadable import UnreadableImages, load_images

        source = open_source(FLAGS.dataset, data_dir=FLAGS.data_dir, holdout=FLAGS.holdout)
        output_dir = pathlib.Path(FLAGS.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        unreadable = UnreadableImages()
        examples = load_images(source.scan(FLAGS.split), source, FLAGS.split, unreadable)
        with unreadable.plain_errors():
            for example in examples.take(FLAGS.count):
                label = source.class_names[int(example["label"])].replace("/", "_")
                name = f"{int(example['id']):06d}_{label}.png"
                Image.fromarray(example["image"].numpy()).save(output_dir / name)
    print(f"Written to {output_dir}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_or_exit)
