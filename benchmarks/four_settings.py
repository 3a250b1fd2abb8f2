"""Whether the paper's four training settings learn: a small PiT on real images, three seeds each.

    pip install -e .[train]
    apt-get install dataset-fashion-mnist
    python benchmarks/four_settings.py --work_dir=runs/four_settings

Fashion-MNIST (Xiao et al., arXiv 1708.07747), as Debian packs it, is written as PNG files: the
first `--train_images` of its training images and the first `--test_images` of its test images. The
model is the same in all settings, a PiT with a distillation token at 32 x 32; `distill` alone gives
it a teacher, so `deit` is the same student without one. The teacher is a PiT twice as wide, trained
by `vanilla` on all 60,000 training images. Runs that are there are not repeated; one that was cut
short is carried on.
"""

import csv
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
from absl import app, flags
from csv_rows import write_rows
from fashion_mnist import IDX_DIR, write_images
from matplotlib.figure import Figure

FLAGS = flags.FLAGS
flags.DEFINE_string("idx_dir", IDX_DIR, "Where the IDX files lie.")
flags.DEFINE_string("work_dir", "runs/four_settings", "Folder for images and runs.")
flags.DEFINE_string("output", "results/four_settings.csv", "The CSV to write.")
flags.DEFINE_integer("train_images", 5000, "Training images.", 1, 60000)
flags.DEFINE_integer("test_images", 2000, "Test images.", 1, 10000)
flags.DEFINE_integer("epochs", 20, "Epochs of each run.", 4)
flags.DEFINE_integer("seeds", 3, "Runs of each setting, with seeds 0, 1, ...", 1)

SETTINGS = ("vanilla", "cutmix", "deit", "distill")
STUDENT = (
    "--model=pit_ti_distilled",
    "--image_size=32",
    "--config.optimizer.learning_rate=1.6e-2",  # for 512 images, so 2e-3 for 64
    "--config.model.patch_size=4",
    "--config.model.stride=4",
    "--config.model.head_dim=16",
    "--config.model.depths=(2, 2, 2)",
)
TEACHER = (
    "--recipe=vanilla",
    "--model=pit_ti",
    "--image_size=32",
    "--epochs=6",
    "--config.model.patch_size=4",
    "--config.model.stride=4",
    "--config.model.depths=(2, 2, 2)",
    "--config.optimizer.learning_rate=8e-3",
)
COMMON = (
    "--batch_size=64",
    "--config.data.crop_scale=(0.5, 1.0)",
    "--config.data.eval_crop=1.0",
    "--config.optimizer.warmup_epochs=2",
)


def main(_):
    root = pathlib.Path(__file__).parents[1]
    work_dir = pathlib.Path(FLAGS.work_dir)
    few, all_images = work_dir / "images", work_dir / "all_images"
    write_images(few, FLAGS.train_images, FLAGS.test_images, FLAGS.idx_dir)
    teacher, rows = work_dir / "teacher", []
    for setting in SETTINGS:
        arguments = [f"--recipe={setting}", *STUDENT]
        if setting == "distill":
            write_images(all_images, None, FLAGS.test_images, FLAGS.idx_dir)
            train(root, all_images, teacher, TEACHER)
            rows.append(row("teacher", 0, teacher))
            arguments.append(f"--teacher={teacher}")
        for seed in range(FLAGS.seeds):
            folder = work_dir / f"{setting}_{seed}"
            train(root, few, folder, [*arguments, f"--epochs={FLAGS.epochs}", f"--seed={seed}"])
            rows.append(row(setting, seed, folder))
            write_rows(rows, pathlib.Path(FLAGS.output))
            draw(rows, pathlib.Path(FLAGS.output).with_suffix(".png"))


def train(root, images, folder, arguments):
    command = [sys.executable, str(root / "train" / "train.py"), *arguments, *COMMON]
    command += [f"--dataset=folder:{images}"]
    print(*command, f"--output_dir={folder}", flush=True)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([*command, f"--output_dir={folder}"], check=True, env=environment)


def row(setting, seed, folder):
    """A run's results, and its validation top-1 after each epoch."""
    results = json.loads((folder / "results.json").read_text())
    with (folder / "history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    return {
        "setting": setting,
        "seed": seed,
        "top1": results["top1"],
        "best_epoch": results["best_epoch"],
        "weights": results.get("weights", "raw"),
        "last_top1": float(history[-1]["val_top1"]),
        "last_averaged_top1": history[-1].get("val_averaged_top1", ""),
        "images": results["images"],
        "top1_by_epoch": " ".join(f"{float(epoch['val_top1']):.4f}" for epoch in history),
    }


def draw(rows, output):
    """Top-1 after each epoch, the mean over the seeds and the range between them."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    for setting in SETTINGS:
        curves = [row["top1_by_epoch"].split() for row in rows if row["setting"] == setting]
        if curves:
            curves = np.array(curves, float)  # (seeds, epochs)
            epochs = np.arange(1, curves.shape[1] + 1)
            axis.plot(epochs, curves.mean(axis=0), label=setting)
            axis.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), alpha=0.2)
    axis.set(xlabel="epoch", ylabel="top-1 on test images", xlim=(1, None))
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(output, dpi=150)


if __name__ == "__main__":
    app.run(main)
