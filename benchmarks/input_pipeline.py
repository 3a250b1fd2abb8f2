"""The training pipeline here against timm's in a PyTorch DataLoader, and where its time goes.

    pip install -e .[train] torch torchvision timm
    python benchmarks/input_pipeline.py --photographs=FOLDER \\
        --output=results/input_pipeline.csv

Both read the same JPEGs of 500 x 375 (quality 95, colours at half resolution), cut from the
photographs of a folder (default: scikit-learn's two), and give batches of 224 x 224 float images
with mixed labels. They do the same:

    cutmix   decode, random resized crop (bicubic), flip, normalise, batch, CutMix
    deit     decode, random resized crop (bicubic), flip, RandAugment rand-m9-mstd0.5-inc1,
             normalise, random erasing 0.25 (noise), batch, MixUp 0.8 or CutMix 1.0

Here that is `train_batches` with a folder source and a `DataConfig`. There it is timm's
`create_transform`, `ImageDataset` and `Mixup` and a DataLoader with two workers; mixing runs in the
main process, as timm does it without its GPU prefetcher. Where today's Pillow refuses what
timm draws (posterising to no bits), that image is augmented again.

Both run in this process, in turn (A B A B ...). Each turn starts with batches that are not timed,
so that what was prepared during the other's turn is used up, and then times a number of batches.
Two ratios are given, medians over medians, higher is better for us: of images per second, and of
the processor time of all processes and threads, on which other jobs have less influence.

The second CSV (OUTPUT_stages.csv) takes our pipeline apart: processor time of an image after each
stage of `deit`, and what the stage adds. Reading the file and making batches, normalised, is part
of the first.
"""

import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags
from csv_rows import write_rows
from PIL import Image

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "photographs", None, "Folder of JPEGs to cut from; default: scikit-learn's two."
)
flags.DEFINE_integer("rounds", 9, "Timed turns of each side.", lower_bound=3)
flags.DEFINE_integer("batches", 16, "Timed batches of a turn.", lower_bound=1)
flags.DEFINE_integer("batch_size", 32, "Images in a batch.", lower_bound=2)
flags.DEFINE_string("output", "results/input_pipeline.csv", "The CSV to write.")

WIDTH, HEIGHT = 500, 375
FILES = 400
CLASSES = 2
WORKERS = 2
UNTIMED = 12  # batches of a turn
RECIPES = {
    "cutmix": {"cutmix_alpha": 1.0},
    "deit": {"rand_augment": True, "erasing": 0.25, "mixup_alpha": 0.8, "cutmix_alpha": 1.0},
}
# Each stage by what it adds to the configuration before it.
STAGES = {
    "decode, crop, resize": {"flip": False},
    "flip": {"flip": True},
    "RandAugment": {"rand_augment": True},
    "erase": {"erasing": 0.25},
    "mix": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0},
}


def main(_):
    with tempfile.TemporaryDirectory() as folder:
        kilobytes = write_jpegs(pathlib.Path(folder))
        # The workers are forked here, before TensorFlow has started its threads.
        theirs = {name: their_batches(folder, settings) for name, settings in RECIPES.items()}
        for batches in theirs.values():
            next(batches)
        rows = [compare(name, folder, theirs[name], kilobytes) for name in RECIPES]
        output = pathlib.Path(FLAGS.output)
        write_rows(rows, output)
        write_rows(stages(folder), output.with_name(f"{output.stem}_stages.csv"))


def write_jpegs(folder):
    """Writes `FILES` files in two class folders; returns their mean size in kilobytes."""
    photographs, rng, sizes = read_photographs(), np.random.default_rng(0), []
    for number in range(FILES):
        image = photographs[number % len(photographs)]
        scale = max(WIDTH / image.width, HEIGHT / image.height)
        if scale > 1:
            image = image.resize((round(image.width * scale), round(image.height * scale)))
        left = rng.integers(image.width - WIDTH + 1)
        top = rng.integers(image.height - HEIGHT + 1)
        path = folder / f"class{number % CLASSES}" / f"{number:04d}.jpg"
        path.parent.mkdir(exist_ok=True)
        piece = image.crop((left, top, left + WIDTH, top + HEIGHT))
        piece.save(path, quality=95, subsampling="4:2:0")
        sizes.append(path.stat().st_size)
    return statistics.mean(sizes) / 1000


def read_photographs():
    if FLAGS.photographs is None:
        from sklearn.datasets import load_sample_images

        return [Image.fromarray(image) for image in load_sample_images().images]
    paths = sorted(pathlib.Path(FLAGS.photographs).glob("*.jp*g"))
    if not paths:
        raise app.UsageError(f"There is no .jpg or .jpeg file in {FLAGS.photographs}.")
    return [Image.open(path).convert("RGB") for path in paths]


def their_batches(folder, settings):
    """timm's endless (images, labels), as PyTorch tensors."""
    try:
        import torch
        from timm.data import ImageDataset, Mixup, create_transform
    except ImportError as error:
        raise app.UsageError(f"{error}; pip install torch torchvision timm") from error

    torch.set_num_threads(1)
    policy = "rand-m9-mstd0.5-inc1" if settings.get("rand_augment") else None
    transform = create_transform(
        224,
        is_training=True,
        interpolation="bicubic",
        color_jitter=None,
        auto_augment=policy,
        re_prob=settings.get("erasing", 0.0),
        re_mode="pixel",
        use_prefetcher=False,
    )
    images = ImageDataset(folder, transform=lambda image: until_accepted(transform, image))
    endless = torch.utils.data.RandomSampler(images, replacement=True, num_samples=10**9)
    loader = torch.utils.data.DataLoader(
        images,
        FLAGS.batch_size,
        sampler=endless,
        num_workers=WORKERS,
        multiprocessing_context="fork",
    )
    mix = Mixup(
        mixup_alpha=settings.get("mixup_alpha", 0.0),
        cutmix_alpha=settings["cutmix_alpha"],
        label_smoothing=0.0,
        num_classes=CLASSES,
    )
    return (mix(*batch) for batch in loader)


def until_accepted(transform, image):
    while True:
        try:
            return transform(image)
        except ValueError:  # Pillow posterises to one bit or more
            pass


def our_batches(folder, settings):
    from pit_keras.config.fields import DataConfig
    from pit_keras.data.labelled_images import open_source
    from pit_keras.data.pipeline import train_batches

    source = open_source(f"folder:{folder}", holdout=0.01)
    return train_batches(source, DataConfig(**settings), batch_size=FLAGS.batch_size, seed=0)


def compare(name, folder, theirs, kilobytes):
    ours = our_batches(folder, RECIPES[name])
    timed(iter(ours))  # compiles
    # Ours begins anew in each turn: it would otherwise run ahead by as much as memory allows.
    turns = [(timed(iter(ours)), timed(theirs)) for _ in range(FLAGS.rounds)]
    row = {"recipe": name, "kilobytes_per_jpeg": round(kilobytes)}
    for place, measure in enumerate(("images_per_s", "processor_ms")):
        ours_median, theirs_median = (
            statistics.median(turn[side][place] for turn in turns) for side in (0, 1)
        )
        ratio = ours_median / theirs_median if place == 0 else theirs_median / ours_median
        row |= {
            f"pit_keras_{measure}": round(ours_median, 2 * place),
            f"timm_{measure}": round(theirs_median, 2 * place),
            f"{measure}_ratio": round(ratio, 2),
        }
    print(*(f"{key}={value}" for key, value in row.items()), sep="  ", flush=True)
    return row


def timed(batches):
    """Images per second and processor milliseconds per image of some batches, after a few more."""
    for _ in range(UNTIMED):
        next(batches)
    wall, processor = time.perf_counter(), processor_seconds()
    for _ in range(FLAGS.batches):
        next(batches)
    images = FLAGS.batches * FLAGS.batch_size
    wall, processor = time.perf_counter() - wall, processor_seconds() - processor
    return images / wall, 1000 * processor / images


def processor_seconds():
    """Processor time of this process and of the workers, user and system."""
    seconds = time.process_time()
    for worker in multiprocessing.active_children():
        fields = pathlib.Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def stages(folder):
    """Rows of the pipeline up to each stage, medians of turns in which all take part."""
    pipelines, settings = {}, {}
    for name, added in STAGES.items():
        settings = {**settings, **added}
        pipelines[name] = our_batches(folder, settings)
        timed(iter(pipelines[name]))
    times = {name: [] for name in pipelines}
    for _ in range(FLAGS.rounds):
        for name, batches in pipelines.items():
            times[name].append(timed(iter(batches))[1])
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows, before, whole = [], 0.0, list(medians.values())[-1]
    for name, milliseconds in medians.items():
        rows.append(
            {
                "stage": name,
                "processor_ms_until_here": round(milliseconds, 2),
                "processor_ms": round(milliseconds - before, 2),
                "share": round((milliseconds - before) / whole, 2),
            }
        )
        before = milliseconds
    return rows


if __name__ == "__main__":
    app.run(main)
