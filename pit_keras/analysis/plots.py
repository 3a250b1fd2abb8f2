"""Pictures: predictions under images, and the curves of a run."""

import csv
import math

import numpy as np
from matplotlib.figure import Figure  # not pyplot: no display, and nobody's backend is changed

from pit_keras.data.preprocessing import load_image

COLUMNS = 6
DPI = 150
MOST_IMAGES = 600  # matplotlib draws no more than 65,535 pixels, 189 rows
MOST_PIXELS = 600  # of a drawn image's side, twice what is seen


def check_picture(output, images):
    """Checks, before long work, that so many images can be drawn in a picture of this name.

    Raises:
        ValueError: If matplotlib does not know the ending, or there are more than `MOST_IMAGES`.
    """
    if images > MOST_IMAGES:
        raise ValueError(f"One picture holds at most {MOST_IMAGES} images; got {images}.")
    known = Figure().canvas.get_supported_filetypes()
    ending = str(output).rpartition(".")[2].lower()
    if ending not in known:
        raise ValueError(f"Cannot draw {output}: its ending must be one of {', '.join(known)}.")


def draw_predictions(paths, predictions, output):
    """Draws images in a grid, each under its likeliest class.

    Args:
        paths: Image files.
        predictions: For each a list of (class name, probability), likeliest first.
        output: The picture to write; its ending decides the format.

    Raises:
        ValueError: If the format is unknown to matplotlib.
    """
    columns = min(COLUMNS, len(paths))
    rows = math.ceil(len(paths) / columns)
    figure = Figure(figsize=(2 * columns, 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, path, best in zip(axes.flat, paths, predictions, strict=False):
        image = load_image(path)
        step = math.ceil(max(image.shape) / MOST_PIXELS)
        axis.imshow(image[::step, ::step].copy())  # a view would keep all of it in memory
        name, probability = best[0]
        axis.set_title(f"{name}  {probability:.0%}", fontsize=10, parse_math=False)
    figure.savefig(output, dpi=DPI)


def draw_history(history, output):
    """Draws a run's `history.csv`: loss and top-1, training and validation, over the epochs.

    Args:
        history: Path of the CSV.
        output: The picture to write.

    Raises:
        ValueError: If the history has no row.
    """
    with open(history, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{history} holds no finished epoch.")
    epochs = np.array([int(row["epoch"]) for row in rows]) + 1
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, name in zip(axes, ("loss", "top1"), strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            axis.plot(epochs, [float(row[key]) for row in rows], label=label)
        axis.set(xlabel="epoch", ylabel={"loss": "cross-entropy", "top1": "top-1"}[name])
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(output, dpi=DPI)
