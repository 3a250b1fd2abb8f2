"""Whether the three detectors learn: digits scattered over photographs, the same budget for each.

    pip install -e .[train]
    python benchmarks/digit_scenes.py --work_dir=runs/digit_scenes

The images are made by train/digit_scenes.py; nothing is downloaded. The detectors are small, with
backbones of like cost. As the paper's begin with what they learned of ImageNet, these are
classifiers first, of one digit an image; all have the same images, epochs, optimizer and rates.
Runs that are there are not repeated; one that was cut short is carried on.

A second table, SUMMARY, has the figures of each finished run's model, and the same with all classes
taken for one (pycocotools' `useCats=0`): how well digits are found, whichever they are taken for.
"""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags
from csv_rows import write_rows
from small_runs import BACKBONES, history_rows, run_script, train_classifier, train_detector

FLAGS = flags.FLAGS
flags.DEFINE_string("work_dir", "runs/digit_scenes", "Folder for scenes and runs.")
flags.DEFINE_string("output", "results/digit_scenes.csv", "The CSV to write.")
flags.DEFINE_string("summary", "results/digit_scenes_summary.csv", "The CSV of the finished runs.")
flags.DEFINE_list("backbones", list(BACKBONES), "Which detectors.")
flags.DEFINE_integer("single_images", 10000, "Training images of one digit.", 100)
flags.DEFINE_integer("single_epochs", 10, "Epochs of each classifier.", 1)
flags.DEFINE_integer("train_images", 4000, "Training scenes.", 1)
flags.DEFINE_integer("val_images", 400, "Validation scenes, and images of one digit.", 100)
flags.DEFINE_integer("epochs", 20, "Epochs of each detector.", 1)
flags.DEFINE_string("learning_rate", "2e-4", "Of the detectors.")

# 64 x 64 pixels, 1 or 2 white digits of 19 to 32: the easiest that can be made.
LOOK = ("--image_size=64", "--most_digits=2", "--sides=0.3,0.5", "--white")
# Crops show the digit anywhere, not in the centre alone.
CLASSIFIER = (
    "--recipe=vanilla",
    "--weights=none",
    "--image_size=64",
    "--batch_size=64",
    "--config.data.crop_scale=(0.4, 1.0)",
    "--config.data.eval_crop=1.0",
    "--config.data.flip=false",
    "--config.optimizer.learning_rate=8e-3",  # for 512 images, so 1e-3 for 64
    "--config.optimizer.warmup_epochs=1",
)
DETECTOR = ("--image_size=64,64", "--batch_size=8")


def main(_):
    work_dir = pathlib.Path(FLAGS.work_dir)
    single, scenes = work_dir / "single", work_dir / "scenes"
    make_images(single, FLAGS.single_images, "--classification")
    make_images(scenes, FLAGS.train_images)
    rows, summary = [], []
    for name in FLAGS.backbones:
        classifier, detector = work_dir / name, work_dir / f"detr_{name}_{FLAGS.learning_rate}"
        train_classifier(name, single, classifier, *CLASSIFIER, f"--epochs={FLAGS.single_epochs}")
        chosen = (f"--epochs={FLAGS.epochs}", f"--weights={classifier / 'model.keras'}")
        chosen += (f"--config.optimizer.learning_rate={FLAGS.learning_rate}",)
        train_detector(name, scenes, detector, *DETECTOR, *chosen)
        which = {"model": f"detr_{name}", "learning_rate": FLAGS.learning_rate}
        rows += history_rows(detector, 1, **which)
        top1 = json.loads((classifier / "results.json").read_text())["top1"]
        given = {**which, "backbone_top1": top1, "train_images": FLAGS.train_images}
        summary.append({**given, **figures_of(detector, scenes)})
        write_rows(rows, pathlib.Path(FLAGS.output))
        write_rows(summary, pathlib.Path(FLAGS.summary))


def figures_of(run, scenes):
    """What a finished run's model finds in the validation scenes, with classes and without."""
    detections = run / "detections.json"
    command = [sys.executable, "-m", "pit_keras", "evaluate", f"--model={run}"]
    command += [f"--dataset=coco:{scenes}", f"--detections={detections}"]
    results = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    figures = {name: round(results[name], 4) for name in ("AP", "AP50", "AP75")}
    located = dict(zip(figures, located_figures(scenes / "val.json", detections), strict=True))
    epochs = json.loads((run / "results.json").read_text())["epochs"]
    figures |= {f"{name}_any_class": round(figure, 4) for name, figure in located.items()}
    return {"epochs": epochs, **figures}


def located_figures(ground_truth, detections):
    """AP, AP50 and AP75 with all classes taken for one."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ground_truth))
        evaluation = COCOeval(truth, truth.loadRes(str(detections)), "bbox")
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(figure) for figure in evaluation.stats[:3]]


def make_images(folder, count, *arguments):
    """Writes a data set if it is not there."""
    if folder.exists():
        return
    unfinished = folder.with_name(f"{folder.name}_unfinished")
    sizes = (f"--train_images={count}", f"--val_images={FLAGS.val_images}")
    run_script("train/digit_scenes.py", *LOOK, *sizes, *arguments, f"--output_dir={unfinished}")
    unfinished.rename(folder)


if __name__ == "__main__":
    app.run(main)
