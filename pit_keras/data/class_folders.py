"""A folder of images as a data set: its files, their classes and their split.

The layout is PATH/train/CLASS/* with PATH/val/CLASS/*, or PATH/CLASS/*, from which a share of each
class is held out. Images are PNG and JPEG files, at any depth below their class folder, whatever
their ending (see `image_files`); hidden files and folders and all other files are left out.
"""

import collections
import hashlib
import itertools
import os
import pathlib
import re
import unicodedata

import tensorflow as tf

from pit_keras.data.class_matching import listing
from pit_keras.data.image_files import ending, in_words, is_image, is_leftover
from pit_keras.data.unreadable import UnreadableImages, load_images

# Words in the names of folders that divide a data set, in any case, and the split that they mean.
_SPLITS = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "pred"), "test"),
}


def list_folder(path, holdout, left_out=None, problems=None):
    """The names of the classes; and of "train" and "val" the paths and the labels, as lists.

    The files of a split are ordered by class and then by name; each directory is listed once.

    `holdout` in (0, 1) is the share of each class held out where there is no `val` folder: at least
    one image, not all, and by their names alone, so that it is the same on every machine. (2, 5)
    holds out the second of five folds. None holds nothing out, leaves "val" empty, and takes a
    single class. `left_out`, a Counter, gets what is no image of a class, by its kind. `problems`,
    a list, gets the sentences about classes for which training refuses a folder; without it, the
    first is raised as a ValueError.
    """
    path = os.path.normpath(os.path.expanduser(path))
    left_out = collections.Counter() if left_out is None else left_out
    least = 1 if holdout is None else 2
    folders = _split_folders(path, _subfolders(path))
    if folders and isinstance(holdout, tuple):
        raise ValueError(f"{path} has its own validation images; folds need {path}/CLASS/*.")
    if folders:
        splits = {
            split: _files_by_class(os.path.join(path, folder), least, left_out, problems)
            for split, folder in folders.items()
        }
        for split, other in (("train", "val"), ("val", "train")):
            if lacking := sorted(splits[other].keys() - splits[split].keys()):
                _refuse(
                    f"{path}/{folders[split]} lacks the class folders {listing(lacking)} of "
                    f"{path}/{folders[other]}.",
                    problems,
                )
        names = sorted(splits["train"].keys() | splits["val"].keys())
        splits = {split: {n: files.get(n, []) for n in names} for split, files in splits.items()}
        unused = set(_subfolders(path)) - set(folders.values())
        left_out.update(f"folder {name!r}" for name in unused)
    else:
        files = _files_by_class(path, least, left_out, problems)
        splits = _hold_out(path, files, holdout, problems)
    paths, labels = {}, {}
    for split, files in splits.items():
        paths[split] = list(itertools.chain.from_iterable(files.values()))
        labels[split] = [label for label, own in enumerate(files.values()) for _ in own]
    return tuple(splits["train"]), paths, labels


def _refuse(sentence, problems):
    if problems is None:
        raise ValueError(sentence)
    problems.append(sentence)


def _split_folders(path, folders):
    """The folders of "train" and "val", by split; {} where the folders are classes."""
    meant = {name: _SPLITS.get(name.casefold()) for name in folders}
    if not {"train"} < set(meant.values()) - {None}:
        words = {name: re.split("[^a-z]+", name.casefold()) for name in folders}
        meant = {n: next(filter(None, map(_SPLITS.get, words[n])), None) for n in folders}
        if None in meant.values():
            return {}
    found = {}
    for split in ("train", "val") if meant else ():
        names = [name for name in folders if meant[name] == split]
        names = [split] if split in names else names
        if len(names) != 1:
            problem = f"several folders for {split}/" if names else f"no {split}/"
            raise ValueError(
                f"{path} has {problem}; it needs {path}/train/CLASS/* and {path}/val/CLASS/*, or "
                f"{path}/CLASS/*. It is divided into {listing(folders)}: rename these."
            )
        (found[split],) = names
    return found


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
    """The sorted names of the folders in `path`, without the hidden ones and leftovers."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no folder {path}.")
    if not os.path.isdir(path):
        raise ValueError(f"{path} is a file; give the folder that holds the class folders.")
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if not is_leftover(e.name) and e.is_dir())


def _files_by_class(path, least, left_out, problems):
    """Maps each class name, sorted, to the sorted paths of its images.

    Names are in Unicode's form NFC: other systems write the same letters in other ways.
    """
    folders = {}
    for name in _subfolders(path):
        folders.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    if not folders:
        raise ValueError(f"{path} holds no class folders; expected {path}/CLASS/*.jpg.")
    if twice := [name for name, forms in folders.items() if len(forms) > 1]:
        raise ValueError(
            f"{path} has several folders that read {twice[0]!r}, in different forms of Unicode "
            f"({', '.join(map(ascii, folders[twice[0]]))}); put their images together."
        )
    if len(folders) < least:
        sentence = f"{path} holds only the class {next(iter(folders))}; it needs at least two."
        _refuse(sentence, problems)
    others = collections.Counter()
    files = {
        name: sorted(_images_below(os.path.join(path, *folders[name]), others))
        for name in sorted(folders)
    }
    if empty := [name for name in files if not files[name]]:
        instead = f"; the folders hold {in_words(others)}" if others else ""
        _refuse(
            f"No PNG or JPEG images in {path} for {listing(empty)}{instead}. Add images or remove "
            "the folders.",
            problems,
        )
    left_out.update(others)
    with os.scandir(path) as entries:
        beside = [e for e in entries if not is_leftover(e.name) and e.is_file()]
        left_out.update("images in no class folder" for e in beside if is_image(e.path))
    return files


def _images_below(path, others):
    """The paths of the images below a folder, in any order; counts other files by their endings."""

    def fail(error):
        raise error

    for folder, folders, files in os.walk(path, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not is_leftover(name)]
        for name in files:
            if is_leftover(name):
                continue
            file = os.path.join(folder, name)
            if is_image(file):
                yield file
            else:
                others[ending(name)] += 1


def _hold_out(path, files, holdout, problems):
    """Splits the files of each class into "train" and "val"; `holdout` is a share or a fold."""
    if holdout is None:
        return {"train": files, "val": {name: [] for name in files}}
    if single := [name for name, paths in files.items() if len(paths) == 1]:
        _refuse(
            f"{path} has a single image for {listing(single)}, so none can be held out; add "
            "images or a val/ folder.",
            problems,
        )
    number, folds = holdout if isinstance(holdout, tuple) else (1, 1)
    few = [name for name, paths in files.items() if len(paths) < folds]
    if few and folds > 1:
        raise ValueError(f"{path} has fewer images than {folds} folds for {listing(few)}.")
    splits = {"train": {}, "val": {}}
    for name, paths in files.items():
        # Fixed pseudo-random keys, so that no run of consecutive files is held out together.
        names = "\0".join(file[len(path) :] for file in paths).replace(os.sep, "/")
        names = unicodedata.normalize("NFC", names)
        names = names.encode(errors="surrogateescape").split(b"\0")
        ranks = [hashlib.blake2b(each).digest() for each in names]
        if folds > 1:
            held = set(sorted(ranks)[number - 1 :: folds])
        else:
            held = set(sorted(ranks)[: min(max(round(holdout * len(paths)), 1), len(paths) - 1)])
        splits["val"][name] = list(itertools.compress(paths, [rank in held for rank in ranks]))
        splits["train"][name] = list(
            itertools.compress(paths, [rank not in held for rank in ranks])
        )
    return splits
