"""The training pipeline here against timm's in a PyTorch DataLoader, and what its stages take.

    pip install -e .[train] torch torchvision timm
    python benchmarks/input_pipeline.py

Both read the same JPEGs of 500 x 375 (quality 95, 4:2:0), cut from scikit-learn's two photographs,
and give batches of mixed, normalised images of 224 x 224:

    cutmix   decode, random resized crop (bicubic), flip, CutMix
    deit     the same, RandAugment rand-m9-mstd0.5-inc1, random erasing 0.25, MixUp or CutMix

timm's DataLoader has two workers; mixing runs in the main process. Both sides take turns, each
after some batches untimed, which use up what was prepared in the other's turn. The CSV has images
per second, processor time of all processes, and their ratios: higher is better for us.
OUTPUT_stages.csv has the processor time up to each stage of `deit`.
"""

import itertools
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time

from command import parse, write_rows
from timm_model import has

WIDTH, HEIGHT = 500, 375
CLASSES = 2
RECIPES = {
    "cutmix": {"cutmix_alpha": 1.0},
    "deit": {"rand_augment": True, "erasing": 0.25, "mixup_alpha": 0.8, "cutmix_alpha": 1.0},
}
# What each stage adds to the configuration.
STAGES = {
    "decode, crop, resize": {"flip": False},
    "flip": {"flip": True},
    "RandAugment": {"rand_augment": True},
    "erase": {"erasing": 0.25},
    "mix": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0},
}


def main(arguments=None):
    small = {"files": 4, "rounds": 1, "batches": 1, "untimed": 1, "batch_size": 2, "workers": 0}
    options = parse(
        __doc__,
        arguments,
        small={**small, "recipes": ("cutmix",), "stages": 2},
        files=400,
        rounds=9,
        batches=16,
        untimed=12,
        batch_size=32,
        workers=2,
        recipes=tuple(RECIPES),
        stages=len(STAGES),
        output="results/input_pipeline.csv",
    )
    with tempfile.TemporaryDirectory() as folder:
        kilobytes = write_jpegs(pathlib.Path(folder), options)
        names = options.recipes if has("torch", "torchvision", "timm") else ()
        theirs = {name: their_batches(folder, name, options) for name in names}
        for batches in theirs.values():  # forks the workers before TensorFlow starts its threads
            next(batches)
        rows = [
            {
                "recipe": name,
                "kilobytes_per_jpeg": kilobytes,
                **compare(our_batches(folder, RECIPES[name], options), theirs.get(name), options),
            }
            for name in options.recipes
        ]
        write_rows(rows, options.output)
        output = pathlib.Path(options.output)
        write_rows(stages(folder, options), output.with_name(f"{output.stem}_stages.csv"))


def write_jpegs(folder, options):
    """Writes files in two class folders; their mean size in kilobytes."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs, rng, sizes = load_sample_images().images, np.random.default_rng(0), []
    for number in range(options.files):
        pixels = photographs[number % len(photographs)]
        left = rng.integers(pixels.shape[1] - WIDTH + 1)
        top = rng.integers(pixels.shape[0] - HEIGHT + 1)
        path = folder / f"class{number % CLASSES}" / f"{number:04d}.jpg"
        path.parent.mkdir(exist_ok=True)
        piece = Image.fromarray(pixels[top : top + HEIGHT, left : left + WIDTH])
        piece.save(path, quality=95, subsampling="4:2:0")
        sizes.append(path.stat().st_size)
    return round(statistics.mean(sizes) / 1000)


def their_batches(folder, recipe, options):
    """timm's endless (images, labels), as PyTorch tensors."""
    import torch
    from timm.data import ImageDataset, Mixup, create_transform

    settings = RECIPES[recipe]
    torch.set_num_threads(1)
    transform = create_transform(
        224,
        is_training=True,
        interpolation="bicubic",
        color_jitter=None,
        auto_augment="rand-m9-mstd0.5-inc1" if settings.get("rand_augment") else None,
        re_prob=settings.get("erasing", 0.0),
        re_mode="pixel",
        use_prefetcher=False,
    )

    def until_accepted(image):
        while True:
            try:
                return transform(image)
            except ValueError:  # Pillow refuses to posterise to no bits
                pass

    images = ImageDataset(folder, transform=until_accepted)
    loader = torch.utils.data.DataLoader(
        images,
        options.batch_size,
        sampler=torch.utils.data.RandomSampler(images, replacement=True, num_samples=10**9),
        num_workers=options.workers,
        multiprocessing_context="fork" if options.workers else None,
    )
    mix = Mixup(
        mixup_alpha=settings.get("mixup_alpha", 0.0),
        cutmix_alpha=settings["cutmix_alpha"],
        label_smoothing=0.0,
        num_classes=CLASSES,
    )
    return (mix(*batch) for batch in loader)


def our_batches(folder, settings, options):
    """A tf.data pipeline that has been traced."""
    from pit_keras.config.fields import DataConfig
    from pit_keras.data.labelled_images import open_source
    from pit_keras.data.pipeline import train_batches

    source = open_source(f"folder:{folder}", holdout=0.01)
    batches = train_batches(source, DataConfig(**settings), batch_size=options.batch_size, seed=0)
    next(iter(batches))
    return batches


def compare(ours, theirs, options):
    # Ours begins anew in each turn: it would otherwise run ahead by as much as memory allows.
    turns = [
        (timed(iter(ours), options), timed(theirs, options) if theirs else (0, 0))
        for _ in range(options.rounds)
    ]
    row = {}
    for place, measure in enumerate(("images_per_s", "processor_ms")):
        our, their = (statistics.median(turn[side][place] for turn in turns) for side in (0, 1))
        ratio = their and (their / our if place else our / their)
        row |= {
            f"pit_keras_{measure}": round(our, 2 * place),
            f"timm_{measure}": round(their, 2 * place) if theirs else "",
            f"{measure}_ratio": round(ratio, 2) if theirs else "",
        }
    return row


def timed(batches, options):
    """Images per second, and processor milliseconds of an image."""
    for _ in range(options.untimed):
        next(batches)
    wall, processor = time.perf_counter(), processor_seconds()
    for _ in range(options.batches):
        next(batches)
    images = options.batches * options.batch_size
    wall, processor = time.perf_counter() - wall, processor_seconds() - processor
    return images / wall, 1000 * processor / images


def processor_seconds():
    """Processor seconds of this process and its workers, user and system."""
    seconds = time.process_time()
    for worker in multiprocessing.active_children():
        fields = pathlib.Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def stages(folder, options):
    """A row for each stage; all pipelines take turns."""
    pipelines, settings = {}, {}
    for name, added in list(STAGES.items())[: options.stages]:
        settings = {**settings, **added}
        pipelines[name] = our_batches(folder, settings, options)
    times = {name: [] for name in pipelines}
    for _ in range(options.rounds):
        for name, batches in pipelines.items():
            times[name].append(timed(iter(batches), options)[1])
    medians = {name: statistics.median(values) for name, values in times.items()}
    reached = [0.0, *medians.values()]
    return [
        {
            "stage": name,
            "processor_ms_until_here": round(after, 2),
            "processor_ms": round(after - before, 2),
            "share": round((after - before) / reached[-1], 2),
        }
        for name, (before, after) in zip(medians, itertools.pairwise(reached), strict=True)
    ]


if __name__ == "__main__":
    main()
