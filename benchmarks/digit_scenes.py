"""Whether the three detectors learn: digits scattered over photographs, the same budget for each.

    pip install -e .[train]
    python benchmarks/digit_scenes.py

The detectors are small, with backbones of like cost, which are trained as classifiers of single
digits first, as the paper's begin with ImageNet. Nothing is downloaded. Finished runs are not
repeated. OUTPUT_summary.csv has the metrics of the finished models, and the same with all classes
taken for one: how well digits are found, whatever they are taken for.
"""

import json
import pathlib

from command import parse, write_rows
from small_detectors import BACKBONES, history_rows, train

SIZE = (64, 64)
METRICS = ("AP", "AP50", "AP75")
# Crops show the digit anywhere, not in the centre alone.
CLASSIFIER = {
    "model.weights": None,
    "data.image_size": SIZE,
    "data.crop_scale": (0.4, 1.0),
    "data.eval_crop": 1.0,
    "data.flip": False,
    "optimizer.learning_rate": 8e-3,  # for 512 images, so 1e-3 for 64
    "optimizer.warmup_epochs": 1.0,
    "training.batch_size": 64,
}


def main(arguments=None):
    few = {"train_images": 8, "val_images": 8, "single_images": 100}
    options = parse(
        __doc__,
        arguments,
        small={**few, "epochs": 1, "single_epochs": 2, "backbones": ("vit_s",)},
        work_dir="runs/digit_scenes",
        backbones=tuple(BACKBONES),
        single_images=10000,
        single_epochs=10,
        train_images=4000,
        val_images=400,
        epochs=20,
        learning_rate=2e-4,
        output="results/digit_scenes.csv",
    )
    work_dir, output = pathlib.Path(options.work_dir), pathlib.Path(options.output)
    single, scenes = write_images(work_dir, options)
    rows, summary = [], []
    for name in options.backbones:
        classifier, detector = work_dir / name, work_dir / f"detr_{name}_{options.learning_rate:g}"
        fields = {"data.dataset": f"folder:{single}", "training.epochs": options.single_epochs}
        train("vanilla", name, classifier, {**CLASSIFIER, **fields}, options.small)
        fields = {
            "model.weights": str(classifier / "model.keras"),
            "data.dataset": f"coco:{scenes}",
            "data.image_size": SIZE,
            "optimizer.learning_rate": options.learning_rate,
            "training.batch_size": 8,
            "training.epochs": options.epochs,
        }
        train("detr", name, detector, fields, options.small)
        columns = {"model": f"detr_{name}", "learning_rate": options.learning_rate}
        rows += history_rows(detector, 1, **columns)
        columns["backbone_top1"] = json.loads((classifier / "results.json").read_text())["top1"]
        columns |= {"train_images": options.train_images, "epochs": options.epochs}
        summary.append({**columns, **metrics_of(detector, scenes)})
    write_rows(rows, output)
    write_rows(summary, output.with_name(f"{output.stem}_summary.csv"))


def write_images(work_dir, options):
    """Writes the single digits and the scenes, if they are not there; their folders."""
    from pit_keras.data.digit_scenes import Look, write_digit_classes, write_digit_scenes

    # 1 or 2 white digits of 19 to 32 pixels: the easiest that can be made.
    look, folders = Look(most=2, sides=(0.3, 0.5), white=True), []
    for name, write, train_images, val_images in (
        # With 100 images no class is empty.
        ("single", write_digit_classes, options.single_images, max(100, options.val_images)),
        ("scenes", write_digit_scenes, options.train_images, options.val_images),
    ):
        folder, unfinished = work_dir / name, work_dir / f"{name}_unfinished"
        if not folder.exists():
            write(unfinished, {"train": train_images, "val": val_images}, SIZE, 0, look=look)
            unfinished.rename(folder)
        folders.append(folder)
    return folders


def metrics_of(run, scenes):
    """What a finished run's model finds in the validation scenes, with classes and without."""
    from pit_keras.data.coco import open_detection_source
    from pit_keras.evaluation.detection import coco_metrics, evaluate_detection_source
    from pit_keras.runs.trained_detector import load_trained_detector

    source = open_detection_source(f"coco:{scenes}")
    found, detections = evaluate_detection_source(
        load_trained_detector(run), source, progress=False
    )
    truth = source.ground_truth("val")

    def of_one_class(boxes):
        return [{**box, "category_id": truth["categories"][0]["id"]} for box in boxes]

    truth = {**truth, "annotations": of_one_class(truth["annotations"])}
    any_class = coco_metrics(truth, of_one_class(detections))
    return {
        **{name: round(found[name], 4) for name in METRICS},
        **{f"{name}_any_class": round(any_class[name], 4) for name in METRICS},
    }


if __name__ == "__main__":
    main()
