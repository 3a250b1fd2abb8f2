"""Compares the recipes `photos` and `cutmix`, from random weights, on small and large folders.

    python benchmarks/fashion_mnist.py --output_dir=runs/fashion
    python benchmarks/photos.py --folder=runs/fashion

Each run trains on the first images of each class in FOLDER/train. A tenth of them is held out and
chooses the epoch to keep; `top1` is measured with the kept model on the first `test_images` of
FOLDER/val. `cutmix` has a batch of 32 and the epochs of `photos`.
"""

import itertools
import os
import pathlib
import tempfile
import time

from command import parse, small_fields, write_rows

FIELDS = {"patch_size": 4, "stride": 4, "depths": (1, 2, 1)}


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"images": (20,), "seeds": (0,), "test_images": 20, "most_epochs": 1},
        folder="runs/fashion",
        images=(200, 2000, 20_000),
        seeds=(0, 1, 2),
        test_images=2000,
        most_epochs=1000,
        output="results/photos.csv",
    )
    rows = []
    with tempfile.TemporaryDirectory() as work:
        test = part(options.folder, "val", options.test_images, f"{work}/test")
        for images, seed, name in itertools.product(
            options.images, options.seeds, ("photos", "cutmix")
        ):
            folder = part(options.folder, "train", images, f"{work}/{images}")
            config = recipe_of(name, folder, images, seed, options)
            rows.append(
                {"images": images, **measure(config, test, f"{work}/{name}{images}-{seed}")}
            )
            print(*rows[-1].values(), flush=True)
    write_rows(rows, options.output)


def part(folder, split, count, path):
    """A folder of links to the first images of each class, `count` together."""
    classes = sorted(pathlib.Path(folder, split).iterdir())
    for each in classes:
        pathlib.Path(path, each.name).mkdir(parents=True, exist_ok=True)
        for file in sorted(each.iterdir())[: count // len(classes)]:
            link = pathlib.Path(path, each.name, file.name)
            if not link.exists():
                os.symlink(file.resolve(), link)
    return path


def recipe_of(name, folder, images, seed, options):
    from pit_keras import recipe

    photos = recipe("photos", "pit_ti", images=round(0.9 * images), weights=None)
    config = photos if name == "photos" else recipe(name, "pit_ti")
    for field, value in {**FIELDS, **(small_fields("pit") if options.small else {})}.items():
        setattr(config.model, field, value)
    config.data.dataset, config.data.image_size = f"folder:{folder}", (32, 32)
    config.training.epochs = min(photos.training.epochs, options.most_epochs)
    config.training.batch_size = (
        photos.training.batch_size if config is photos else min(32, images // 2)
    )
    config.optimizer.warmup_epochs = min(
        config.optimizer.warmup_epochs, config.training.epochs / 10
    )
    config.training.seed = seed
    return config


def measure(config, test, output_dir):
    """Trains a run; accuracy, on its own validation images and the test's, and minutes."""
    import keras

    from pit_keras.data.labelled_images import open_source
    from pit_keras.evaluation.classification import evaluate_source
    from pit_keras.runs.trained_model import load_trained_model
    from pit_keras.training.tasks import open_source_of
    from pit_keras.training.trainer import Trainer

    start = time.perf_counter()
    results = Trainer(config, open_source_of(config), output_dir, verbose=False).run()
    minutes = (time.perf_counter() - start) / 60
    source = open_source(f"folder:{test}", holdout=None)
    measured = evaluate_source(load_trained_model(output_dir), source, "train", progress=False)
    keras.backend.clear_session()
    return {
        "recipe": config.recipe, "seed": config.training.seed, "epochs": config.training.epochs,
        "batch": config.training.batch_size, "best_epoch": results["best_epoch"],
        "val_top1": round(results["top1"], 4), "top1": round(measured["top1"], 4),
        "loss": round(measured["loss"], 4), "minutes": round(minutes, 2),
    }  # fmt: skip


if __name__ == "__main__":
    main()
