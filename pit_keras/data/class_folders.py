"""A folder of images as a data set: its files, their classes and their split.

The layout is PATH/train/CLASS/* with PATH/val/CLASS/*, or PATH/CLASS/*, from which a share of each
class is held out. Images are PNG and JPEG files, at any depth below their class folder; hidden
files and folders and all other files are ignored.
"""

import hashlib
import itertools
import os
import pathlib

import tensorflow as tf

from pit_keras.data.unreadable import UnreadableImages, load_images

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
SPLIT_FOLDERS = {"train", "val", "valid", "validation", "dev", "test"}


def list_folder(path, holdout):
    """The names of the classes; and of "train" and "val" the paths and the labels, as lists.

    The files of a split are ordered by class and then by name; each directory is listed once.

    `holdout` in (0, 1) is the share of each class held out where there is no `val` folder: at least
    one image, not all, and by their names alone, so that it is the same on every machine. None
    holds nothing out and leaves "val" empty.
    """
    path = os.path.normpath(os.path.expanduser(path))
    folders = set(_subfolders(path))
    if {"train", "val"} <= folders:
        splits = {split: _files_by_class(os.path.join(path, split)) for split in ("train", "val")}
        for split, other in (("train", "val"), ("val", "train")):
            if lacking := sorted(splits[other].keys() - splits[split].keys()):
                raise ValueError(
                    f"{path}/{split} lacks the class folders {_listing(lacking)} of {path}/{other}."
                )
    elif {"train", "val"} & folders and folders <= SPLIT_FOLDERS:
        (absent,) = {"train", "val"} - folders
        raise ValueError(
            f"{path} has no {absent}/; it needs {path}/train/CLASS/* and {path}/val/CLASS/*, or "
            f"{path}/CLASS/*."
        )
    else:
        splits = _hold_out(path, _files_by_class(path), holdout)
    paths, labels = {}, {}
    for split, files in splits.items():
        paths[split] = list(itertools.chain.from_iterable(files.values()))
        labels[split] = [label for label, own in enumerate(files.values()) for _ in own]
    return tuple(splits["train"]), paths, labels


def encoded(paths):
    """The paths as `os.fsencode` gives them; all at once, which is several times as fast."""
    return os.fsencode("\0".join(paths)).split(b"\0") if paths else []


def write_class_folder(source, split, folder, per_class):
    """Writes the first `per_class` images of every class as FOLDER/CLASS/ID.png.

    Returns the paths, in the order of the split.
    """
    folder, unreadable, paths = pathlib.Path(folder), UnreadableImages(), []
    for name in source.class_names:
        if name in ("", ".", "..") or "/" in name:
            raise ValueError(f"The class {name!r} cannot be the name of a folder.")
        (folder / name).mkdir(parents=True, exist_ok=True)
    missing = [per_class] * len(source.class_names)
    with unreadable.plain_errors():
        for example in load_images(source.scan(split), source, split, unreadable):
            label = int(example["label"])
            if missing[label]:
                missing[label] -= 1
                name = f"{int(example['id']):06d}.png"
                paths.append(folder / source.class_names[label] / name)
                tf.io.write_file(str(paths[-1]), tf.io.encode_png(example["image"]))
            if not any(missing):
                break
    return paths


def _subfolders(path):
    """The sorted names of the folders in `path`, without the hidden ones."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no folder {path}.")
    if not os.path.isdir(path):
        raise ValueError(f"{path} is a file; give the folder that holds the class folders.")
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _files_by_class(path):
    """Maps each class name, sorted, to the sorted paths of its images."""
    names = _subfolders(path)
    if not names:
        raise ValueError(f"{path} holds no class folders; expected {path}/CLASS/*.jpg.")
    if len(names) == 1:
        raise ValueError(f"{path} holds only the class {names[0]}; it needs at least two.")
    files = {name: sorted(_images_below(os.path.join(path, name))) for name in names}
    if empty := [name for name in names if not files[name]]:
        raise ValueError(f"No PNG or JPEG images in {path} for {_listing(empty)}.")
    return files


def _images_below(path):
    """The paths of the images below a folder, in any order."""

    def fail(error):
        raise error

    for folder, folders, files in os.walk(path, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield os.path.join(folder, name)


def _hold_out(path, files, holdout):
    """Splits the files of each class into "train" and "val"."""
    if holdout is None:
        return {"train": files, "val": {name: [] for name in files}}
    if single := [name for name, paths in files.items() if len(paths) == 1]:
        raise ValueError(
            f"{path} has a single image for {_listing(single)}, so none can be held out; add "
            "images or a val/ folder."
        )
    splits = {"train": {}, "val": {}}
    for name, paths in files.items():
        count = min(max(round(holdout * len(paths)), 1), len(paths) - 1)
        # Fixed pseudo-random keys, so that no run of consecutive files is held out together.
        names = "\0".join(file[len(path) :] for file in paths).replace(os.sep, "/")
        names = names.encode(errors="surrogateescape").split(b"\0")
        ranks = [hashlib.blake2b(each).digest() for each in names]
        last = sorted(ranks)[count - 1]
        splits["val"][name] = list(itertools.compress(paths, [rank <= last for rank in ranks]))
        splits["train"][name] = list(itertools.compress(paths, [rank > last for rank in ranks]))
    return splits


def _listing(names, limit=5):
    """`'a', 'b' and 7 more`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(map(repr, names[:limit]))}{more}"
