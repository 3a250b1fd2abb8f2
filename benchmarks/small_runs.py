"""Small detectors on small images, as the proofs here train them with train/detect.py."""

import csv
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
FIGURES = ("loss", "class_loss", "l1_loss", "giou_loss", "val_AP", "val_AP50", "val_AP75")
# Encoder, decoder and training: DETR's, but smaller, and the backbone learns as fast as the rest.
SMALL = (
    "--config.model.queries=15",
    "--config.model.encoder_layers=2",
    "--config.model.decoder_layers=3",
    "--config.model.hidden_width=96",
    "--config.model.hidden_heads=4",
    "--config.model.feed_forward=192",
    "--config.model.dropout=0.0",
    "--config.detection.backbone_rate=1.0",
    "--config.detection.multi_scale=false",
    "--config.detection.random_crop=false",
    "--config.data.flip=false",
)
# Backbones of 50 to 57 million multiply-accumulates at 64 x 64, as classifiers have them ...
BACKBONES = {
    "pit_s": (
        "--config.model.patch_size=8",
        "--config.model.stride=4",
        "--config.model.head_dim=8",
    ),
    "vit_s": (
        "--config.model.patch_size=8",
        "--config.model.stride=8",
        "--config.model.head_dim=12",
    ),
    "resnet50": (
        "--config.model.base_width=10",
        "--config.model.stem_stride=2",
    ),
}
# ... and what makes the stride of their last maps 8.
DILATION = {
    "pit_s": ("--config.model.output_stride=8",),
    "vit_s": (),
    "resnet50": ("--config.model.output_stride=8", "--config.model.frozen_stages=0"),
}


def train_classifier(backbone, dataset, output_dir, *flags):
    """Trains a small classifier; a finished run stays as it is, one cut short is carried on."""
    command = ["train/train.py", f"--model={backbone}", *BACKBONES[backbone], *flags]
    run_script(*command, f"--dataset=folder:{dataset}", f"--output_dir={output_dir}")


def train_detector(backbone, dataset, output_dir, *flags):
    """Trains a small detector; a finished run stays as it is, one cut short is carried on."""
    command = ["train/detect.py", f"--model=detr_{backbone}", *SMALL]
    command += [*BACKBONES[backbone], *DILATION[backbone], *flags]
    run_script(*command, f"--dataset=coco:{dataset}", f"--output_dir={output_dir}")


def run_script(script, *arguments):
    """Runs a script of this project, such as "train/detect.py".

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    command = [sys.executable, str(ROOT / script), *arguments]
    print(*command, flush=True)
    subprocess.run(command, check=True)


def history_rows(output_dir, every, **columns):
    """Rows of a run's history, each `every`th and the last, with more columns in front."""
    with (pathlib.Path(output_dir) / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {**columns, "epoch": int(row["epoch"]) + 1, **{name: row[name] for name in FIGURES}}
        for number, row in enumerate(rows, 1)
        if number % every == 0 or number == len(rows)
    ]
