"""Images of a data set as a folder of class folders: the layout that `open_source` reads."""

import pathlib

import tensorflow as tf

from pit_keras.data.unreadable import UnreadableImages, load_images


def write_class_folder(source, split, folder, per_class):
    """Writes the first images of every class as `FOLDER/CLASS/ID.png`.

    Args:
        source: What `pit_keras.data.labelled_images.open_source` returns.
        split: "train" or "val".
        folder: Made if need be; files of the same names are replaced.
        per_class: At most so many images of each class.

    Returns:
        The paths, in the order of the split.

    Raises:
        ValueError: If a folder cannot have a class's name, or an image cannot be read.
    """
    folder, unreadable, paths = pathlib.Path(folder), UnreadableImages(), []
    for name in source.class_names:
        if name in ("", ".", "..") or "/" in name:
            raise ValueError(f"The class {name!r} cannot be written: a folder has no such name.")
    classes = [folder / name for name in source.class_names]
    for path in classes:
        path.mkdir(parents=True, exist_ok=True)
    missing = [per_class] * len(classes)
    with unreadable.plain_errors():
        for example in load_images(source.scan(split), source, split, unreadable):
            label = int(example["label"])
            if missing[label]:
                missing[label] -= 1
                paths.append(classes[label] / f"{int(example['id']):06d}.png")
                tf.io.write_file(str(paths[-1]), tf.io.encode_png(example["image"]))
            if not any(missing):
                break
    return paths
