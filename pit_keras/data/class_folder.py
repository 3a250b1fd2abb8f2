"""Images of a data set as a folder of class folders: the layout that `open_source` reads."""

import pathlib

import tensorflow as tf

from pit_keras.data.unreadable import UnreadableImages, load_images


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
