"""Fashion-MNIST (Xiao et al., arXiv 1708.07747), as Debian packs it, written as a folder of PNGs.

    apt-get install dataset-fashion-mnist
    python benchmarks/fashion_mnist.py --train_images=5000 --test_images=2000 --output_dir=DIR

The first images of each part are taken. A folder that was written is kept.
"""

import gzip
import pathlib
import sys

import numpy as np
from absl import app, flags
from PIL import Image

IDX_DIR = "/usr/share/datasets/fashion-mnist"
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat")
CLASSES += ("Sandal", "Shirt", "Sneaker", "Bag", "Boot")


def write_images(folder, train_images, test_images, idx_dir=IDX_DIR):
    """Writes FOLDER/train/CLASS/*.png and FOLDER/val/CLASS/*.png, so many of each or (None) all."""
    for split, name, count in (("train", "train", train_images), ("val", "t10k", test_images)):
        idx = pathlib.Path(idx_dir)
        images = _read_idx(idx / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = _read_idx(idx / f"{name}-labels-idx1-ubyte.gz", 8)
        for index, (image, label) in enumerate(zip(images[:count], labels, strict=False)):
            path = pathlib.Path(folder) / split / CLASSES[label] / f"{index:05d}.png"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)


def _read_idx(path, header):
    """The bytes of an IDX file after its header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def main(_):
    values = flags.FLAGS
    try:
        write_images(values.output_dir, values.train_images, values.test_images, values.idx_dir)
    except FileNotFoundError as error:
        sys.exit(f"error: there is no {error.filename}; apt-get install dataset-fashion-mnist.")


if __name__ == "__main__":
    flags.DEFINE_string("idx_dir", IDX_DIR, "Where the IDX files lie.")
    flags.DEFINE_string("output_dir", None, "Folder to write to.", required=True)
    flags.DEFINE_integer("train_images", 60000, "Training images.", 1, 60000)
    flags.DEFINE_integer("test_images", 10000, "Test images, the folder's val.", 1, 10000)
    app.run(main)
