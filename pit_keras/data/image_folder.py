"""A folder of images as a data set: which files there are, their classes and their split.

Two layouts are understood, `PATH/train/CLASS/*` with `PATH/val/CLASS/*`, and `PATH/CLASS/*`, from
which a share of each class is held out. Images are PNG and JPEG files, at any depth below their
class folder; hidden files and folders and all other files are ignored.
"""

import dataclasses
import hashlib
import itertools
import os

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
SPLIT_FOLDERS = {"train", "val", "valid", "validation", "dev", "test"}


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """A listed folder: the files of each split, ordered by class and then by name.

    `paths` and `labels` map "train" and "val" to tuples of equal lengths.
    """

    class_names: tuple[str, ...]
    paths: dict[str, tuple[str, ...]]
    labels: dict[str, tuple[int, ...]]


def list_folder(path, holdout):
    """Lists the image folder at `path`, each directory once.

    Args:
        path: the folder, in one of the two layouts above.
        holdout: in (0, 1), the share of each class held out for validation where there is no `val`
            folder, rounded, but at least one image and not all of them. Which images are held out
            depends on their names alone, so that it is the same on every machine. None: nothing is
            held out, and "val" is empty.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder is not laid out as above; the sentence says where.
    """
    path = os.path.normpath(os.path.expanduser(path))
    classes = _subfolders(path)
    if {"train", "val"} <= set(classes):
        splits = {split: _files_by_class(os.path.join(path, split)) for split in ("train", "val")}
        _check_same_classes(path, splits)
    elif {"train", "val"} & set(classes) and set(classes) <= SPLIT_FOLDERS:
        present, absent = ("train", "val") if "train" in classes else ("val", "train")
        raise ValueError(
            f"{path} holds {present}/ but no {absent}/; expected {path}/train/CLASS/* and "
            f"{path}/val/CLASS/*, or {path}/CLASS/*."
        )
    else:
        splits = _hold_out(path, _files_by_class(path), holdout)
    names = tuple(splits["train"])
    return ImageFolder(
        class_names=names,
        paths={
            split: tuple(itertools.chain.from_iterable(files[name] for name in names))
            for split, files in splits.items()
        },
        labels={
            split: tuple(
                itertools.chain.from_iterable(
                    itertools.repeat(label, len(files[name])) for label, name in enumerate(names)
                )
            )
            for split, files in splits.items()
        },
    )


def encoded(paths):
    """The paths as `os.fsencode` gives them; all at once, which is several times as fast."""
    return os.fsencode("\0".join(paths)).split(b"\0") if paths else []


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
        raise ValueError(
            f"{path} holds one class folder only, {names[0]}; classification needs at least two."
        )
    files = {name: sorted(_images_below(os.path.join(path, name))) for name in names}
    empty = [name for name in names if not files[name]]
    if empty:
        raise ValueError(f"No PNG or JPEG images in {path} for {_listing('class', empty)}.")
    return files


def _images_below(folder):
    """The paths of the images below a folder, in any order."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            if entry.is_dir():
                folders.append(entry.path)
            elif name.lower().endswith(IMAGE_SUFFIXES):
                files.append(entry.path)
    for path in folders:
        files += _images_below(path)
    return files


def _check_same_classes(path, splits):
    train, val = set(splits["train"]), set(splits["val"])
    if train != val:
        differences = [
            f"{_listing('class', sorted(names))} only in {split}/"
            for split, names in (("train", train - val), ("val", val - train))
            if names
        ]
        raise ValueError(
            f"The class folders of {path}/train and {path}/val differ: {', '.join(differences)}."
        )


def _hold_out(path, files, holdout):
    """Splits the files of each class into "train" and "val"."""
    if holdout is None:
        return {"train": files, "val": {name: [] for name in files}}
    if not 0 < holdout < 1:
        raise ValueError(f"The held-out share must be between 0 and 1, got {holdout}.")
    single = [name for name, paths in files.items() if len(paths) == 1]
    if single:
        raise ValueError(
            f"A share of each class must be held out, but in {path} there is only one image for "
            f"{_listing('class', single)}; add images or a val/ folder."
        )
    splits = {"train": {}, "val": {}}
    for name, paths in files.items():
        count = min(max(round(holdout * len(paths)), 1), len(paths) - 1)
        ranks = _ranks([file[len(path) :] for file in paths])
        last = sorted(ranks)[count - 1]
        splits["val"][name] = [
            file for file, rank in zip(paths, ranks, strict=True) if rank <= last
        ]
        splits["train"][name] = [
            file for file, rank in zip(paths, ranks, strict=True) if rank > last
        ]
    return splits


def _ranks(names):
    """Fixed pseudo-random keys, so that no run of consecutive files is held out together."""
    joined = "\0".join(names).replace(os.sep, "/")
    encoded_names = joined.encode(errors="surrogateescape").split(b"\0")
    return [hashlib.blake2b(name).digest() for name in encoded_names]


def _listing(noun, names, limit=5):
    """`class 'a'`, or `classes 'a', 'b' and 7 more`."""
    plural = noun if len(names) == 1 else f"{noun}es"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{plural} {', '.join(map(repr, names[:limit]))}{more}"
