"""Whether a detector can learn sixteen photographs by heart, with and without normalised features.

    pip install -e .[train]
    pip install --no-deps foolbox==3.3.4
    python benchmarks/overfit_detection.py

A fault in boxes, matching or losses keeps a detector from that. foolbox ships the photographs;
photographs.json has boxes around their main objects. Training and validation images are the same.
Finished runs are not repeated.
"""

import importlib.util
import json
import pathlib
import shutil
import sys

from command import parse, write_rows
from small_detectors import history_rows, train

ANNOTATIONS = pathlib.Path(__file__).with_name("photographs.json")
NORMALISED = {"plain": False, "normalised": True}


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"epochs": 1, "features": ("plain",)},
        photographs="",
        work_dir="runs/overfit_detection",
        backbone="pit_s",
        epochs=450,
        features=tuple(NORMALISED),
        output="results/overfit_detection.csv",
    )
    work_dir, rows = pathlib.Path(options.work_dir), []
    images = work_dir / "photographs"
    foolbox = importlib.util.find_spec("foolbox")
    if not options.photographs and foolbox is None:
        sys.exit("error: foolbox is not installed: pip install --no-deps foolbox==3.3.4.")
    write_photographs(images, options.photographs or pathlib.Path(foolbox.origin).with_name("data"))
    for form in options.features:
        fields = {
            "model.weights": None,
            "model.normalize_features": NORMALISED[form],
            "data.dataset": f"coco:{images}",
            "data.image_size": (64, 96),
            "optimizer.learning_rate": 2e-4,
            "training.batch_size": 16,
            "training.epochs": options.epochs,
        }
        train("detr", options.backbone, work_dir / form, fields, options.small)
        columns = {"model": f"detr_{options.backbone}", "features": form}
        rows += history_rows(work_dir / form, 50, **columns)
    write_rows(rows, options.output)


def write_photographs(folder, photographs):
    """Writes the photographs in COCO's form, the same as "train" and "val"."""
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for image in json.loads(ANNOTATIONS.read_text())["images"]:
            name = image["file_name"]
            shutil.copyfile(pathlib.Path(photographs) / name, folder / split / name)
        shutil.copyfile(ANNOTATIONS, folder / f"{split}.json")


if __name__ == "__main__":
    main()
