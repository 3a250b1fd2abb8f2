"""What `pit-keras check` finds of what was planted in a clean folder, and what it says of that.

    pip install -e .[train]
    python benchmarks/dirty_folder.py
    python benchmarks/dirty_folder.py --folder=PATH

The clean folder, PATH/train/CLASS/* and PATH/val/CLASS/*, is by default scikit-learn's digits,
enlarged and in colours. `found` counts planted files with a finding of the kind; where nothing was
planted, the findings in the clean folder, and in the dirty one those on no planted file.
"""

import collections
import pathlib
import shutil
import tempfile
import time

import numpy as np
from command import parse, write_rows
from PIL import Image, ImageEnhance, ImageOps

TRAINING = 1400  # digits
ORIENTATION, SIDEWAYS = 0x0112, 6


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"planted": 1, "images": 300},
        folder="",
        planted=20,
        images=1797,
        output="results/dirty_folder.csv",
    )
    from pit_keras.evaluation.folder_check import check_folder

    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work, "folder")
        if options.folder:
            shutil.copytree(options.folder, folder)
        else:
            write_digits(folder, options.images)
        clean = check_folder(folder)
        planted = plant(folder, options.planted)
        begin = time.perf_counter()
        dirty = check_folder(folder)
        seconds = time.perf_counter() - begin
    images = sum(map(sum, dirty.images.values()))
    print(f"{images} images in {seconds:.1f} s, {images / seconds:.0f} a second")
    files = set().union(*planted.values())
    unplanted = [each for each in dirty.findings if files.isdisjoint(each[1:3])]
    rows = []
    for what, findings in (("clean folder", clean.findings), ("dirty folder", unplanted)):
        kinds = collections.Counter(each.kind for each in findings)
        rows += [{"what": what, "kind": k, "planted": 0, "found": n} for k, n in kinds.items()]
    for what, files in planted.items():
        kind = PLANTS[what][0]
        found = {f for each in dirty.findings if each.kind == kind for f in each[1:3]} & files
        rows.append({"what": what, "kind": kind, "planted": len(files), "found": len(found)})
    write_rows(rows, options.output)


def write_digits(folder, images):
    from sklearn.datasets import load_digits

    tints = np.random.default_rng(0).uniform(0.5, 1, (images, 3))
    pixels, labels = load_digits(return_X_y=True)
    for index, (each, label, tint) in enumerate(zip(pixels, labels, tints, strict=False)):
        split = "train" if index < images * TRAINING // len(pixels) else "val"
        path = folder / split / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((each.reshape(8, 8, 1) * 15 * tint).astype("uint8"))
        picture.resize((64, 64), Image.Resampling.BICUBIC).save(path)


def scaled(picture, path):
    picture.resize((picture.width // 2, picture.height // 2)).save(path)


def turned(picture, path):
    exif = Image.Exif()
    exif[ORIENTATION] = SIDEWAYS
    picture.rotate(90, expand=True).save(path, exif=exif)


def cut_short(picture, path):
    picture.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])


def transparent(picture, path):
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(path)


# What is planted: its kind, in which split, of the same class or not, its ending (None: the
# original's bytes), how it is written.
PLANTS = {
    "copy in validation": ("two_splits", "val", True, None, None),
    "copy in its class": ("twice", "train", True, None, None),
    "copy in another class": ("two_classes", "train", False, None, None),
    "JPEG of quality 60": (
        "near_two_splits", "val", True, ".jpg", lambda i, p: i.save(p, quality=60)
    ),
    "half as large": ("near_two_splits", "val", True, ".png", scaled),
    "a quarter brighter": (
        "near_two_splits", "val", True, ".png",
        lambda i, p: ImageEnhance.Brightness(i).enhance(1.25).save(p),
    ),
    "mirrored": ("near_two_splits", "val", True, ".png", lambda i, p: ImageOps.mirror(i).save(p)),
    "moved to another class": ("wrong_label", "train", False, None, None),
    "turned, with EXIF": ("rotated", "train", True, ".jpg", turned),
    "cut short": ("unreadable", "train", True, ".jpg", cut_short),
    "WebP named .jpg": ("unreadable", "train", True, ".jpg", lambda i, p: i.save(p, "WEBP")),
    "PNG named .jpg": ("misnamed", "train", True, ".jpg", lambda i, p: i.save(p, "PNG")),
    "16 pixels": ("tiny", "train", True, ".png", lambda i, p: i.resize((16, 16)).save(p)),
    "grey": ("grey", "train", True, ".png", lambda i, p: i.convert("L").save(p)),
    "transparent": ("transparent", "train", True, ".png", transparent),
}  # fmt: skip
COPIES = ("two_splits", "twice", "two_classes", "near_two_splits")  # the original stays


def plant(folder, count):
    """Plants so many files of each kind, of different images: {what: their names}."""
    chance = np.random.default_rng(1)
    files = sorted(path for path in (folder / "train").rglob("*") if path.is_file())
    files = [files[index] for index in chance.permutation(len(files))]
    classes = sorted({path.parent.name for path in files})
    planted = collections.defaultdict(set)
    for what, (kind, split, same_class, ending, write) in PLANTS.items():
        for _ in range(count):
            original = files.pop()
            own = original.parent.name
            others = [own] if same_class else [name for name in classes if name != own]
            name = f"{original.stem}_{len(planted[what])}{ending or original.suffix}"
            path = folder / split / str(chance.choice(others)) / name
            if write is None:
                shutil.copy(original, path)
            else:
                write(Image.open(original).convert("RGB"), path)
            if kind not in COPIES:
                original.unlink()
            planted[what].add(str(path.relative_to(folder)))
    return planted


if __name__ == "__main__":
    main()
