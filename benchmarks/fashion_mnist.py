"""Writes Fashion-MNIST (Xiao et al., arXiv 1708.07747), as Debian packs it, as a folder of PNGs.

    apt-get install dataset-fashion-mnist
    python benchmarks/fashion_mnist.py --train_images=5000 --test_images=2000 --output_dir=DIR

The first images of each part become DIR/train/CLASS/*.png and DIR/val/CLASS/*.png.
"""

import gzip
import pathlib

import numpy as np
from command import parse
from PIL import Image

from pit_keras.errors import exit_with_one_sentence

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat")
CLASSES += ("Sandal", "Shirt", "Sneaker", "Bag", "Boot")


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"train_images": 1, "test_images": 1},
        idx_dir="/usr/share/datasets/fashion-mnist",
        output_dir="runs/fashion",
        train_images=60000,
        test_images=10000,
    )
    idx, folder = pathlib.Path(options.idx_dir), pathlib.Path(options.output_dir)
    with exit_with_one_sentence():
        write(idx, "train", folder / "train", options.train_images)
        write(idx, "t10k", folder / "val", options.test_images)


def write(idx, part, folder, count):
    images = read(idx / f"{part}-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28)
    labels = read(idx / f"{part}-labels-idx1-ubyte.gz", header=8)
    for index, (image, label) in enumerate(zip(images[:count], labels, strict=False)):
        path = folder / CLASSES[label] / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def read(path, header):
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


if __name__ == "__main__":
    main()
