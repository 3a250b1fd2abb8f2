"""Whether the three detectors learn: digits scattered over photographs, the same budget for each.

    pip install -e .[train]
    python benchmarks/digit_scenes.py --work_dir=runs/digit_scenes

The scenes are made by train/digit_scenes.py; nothing is downloaded. The detectors are small, with
backbones of like cost, and nothing of them was learned before. All have the same images, epochs,
optimizer and rates. Runs that are there are not repeated; one that was cut short is carried on.

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
from detection_runs import BACKBONES, ROOT, history_rows, train

FLAGS = flags.FLAGS
flags.DEFINE_string("work_dir", "runs/digit_scenes", "Folder for scenes and runs.")
flags.DEFINE_string("output", "benchmarks/results/digit_scenes.csv", "The CSV to write.")
flags.DEFINE_string(
    "summary", "benchmarks/results/digit_scenes_summary.csv", "The CSV of the finished runs."
)
flags.DEFINE_list("models", list(BACKBONES), "Which detectors.")
flags.DEFINE_integer("train_images", 4000, "Training scenes.", 1)
flags.DEFINE_integer("val_images", 200, "Validation scenes.", 1)
flags.DEFINE_integer("epochs", 14, "Epochs of each run.", 1)


def main(_):
    work_dir = pathlib.Path(FLAGS.work_dir)
    scenes = work_dir / "scenes"
    if not (scenes / "val.json").exists():
        make_scenes(scenes)
    rows, summary = [], []
    for model in FLAGS.models:
        run = work_dir / model
        flags_of_run = ("--image_size=64,64", "--batch_size=8", f"--epochs={FLAGS.epochs}")
        train(model, scenes, run, *flags_of_run)
        rows += history_rows(run, 1, model=model)
        figures = figures_of(run, scenes)
        summary.append({"model": model, "train_images": FLAGS.train_images, **figures})
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


def make_scenes(folder):
    """Writes the data set, scenes of 64 x 64 pixels with 1 or 2 white digits of 19 to 32."""
    command = [sys.executable, str(ROOT / "train/digit_scenes.py"), "--image_size=64"]
    command += ["--most_digits=2", "--sides=0.3,0.5", "--white"]
    command += [f"--train_images={FLAGS.train_images}", f"--val_images={FLAGS.val_images}"]
    subprocess.run([*command, f"--output_dir={folder}"], check=True)


if __name__ == "__main__":
    app.run(main)
