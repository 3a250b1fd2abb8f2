"""Whether a detector can learn sixteen photographs by heart, and whether it helps to normalise the
backbone's features: its average precision on the images it is trained on.

    pip install -e .[train]
    pip install --no-deps foolbox==3.3.4
    python benchmarks/overfit_detection.py --work_dir=runs/overfit

What is wrong with boxes, matching or losses keeps a detector from that. foolbox ships photographs
of ImageNet's classes; photographs.json, beside this file, has boxes around their main objects. They
are written as WORK_DIR/photographs in COCO's form, the same for training and validation. Two runs
differ in `normalize_features` alone. Runs that are there are not repeated; one that was cut short
is carried on.
"""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags
from csv_rows import write_rows
from photographs import foolbox_photographs, write_photographs
from small_runs import BACKBONES, history_rows, train_detector

from pit_keras.errors import exit_with_one_sentence

FORMS = {"plain": "false", "normalised": "true"}  # of the features, and the flag's value

FLAGS = flags.FLAGS
flags.DEFINE_string("work_dir", "runs/overfit_detection", "Folder for photographs and runs.")
flags.DEFINE_string("output", "results/overfit_detection.csv", "The CSV to write.")
flags.DEFINE_enum("backbone", "pit_s", list(BACKBONES), "The detector's.")
flags.DEFINE_integer("epochs", 450, "Epochs of each run, of one step each.", 1)
flags.DEFINE_multi_enum("features", list(FORMS), list(FORMS), "Which runs.")


def main(_):
    work_dir = pathlib.Path(FLAGS.work_dir)
    photographs = work_dir / "photographs"
    with exit_with_one_sentence(ModuleNotFoundError):
        write_photographs(photographs, foolbox_photographs())
    rows = []
    for form in FLAGS.features:
        run = work_dir / form
        train_detector(
            FLAGS.backbone,
            photographs,
            run,
            "--weights=none",
            "--config.optimizer.learning_rate=2e-4",
            "--image_size=64,96",
            "--batch_size=16",
            f"--epochs={FLAGS.epochs}",
            f"--config.model.normalize_features={FORMS[form]}",
        )
        rows += history_rows(run, 50, model=f"detr_{FLAGS.backbone}", features=form)
    write_rows(rows, pathlib.Path(FLAGS.output))


if __name__ == "__main__":
    app.run(main)
