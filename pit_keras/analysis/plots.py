"""Pictures: predictions under images, and the curves of a run."""

import csv
import math

import matplotlib
import numpy as np

matplotlib.use("Agg")  # no display is needed; all pictures go to files
from matplotlib import pyplot as plt

from pit_keras.data.preprocessing import load_image

COLUMNS = 6


def check_picture_name(output):
    """Checks, before long work, that a picture of this name can be written.

    Raises:
        ValueError: If matplotlib does not know the ending.
    """
    known = plt.figure().canvas.get_supported_filetypes()
    plt.close()
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
    figure, axes = plt.subplots(
        rows, columns, figsize=(2 * columns, 2.3 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, path, best in zip(axes.flat, paths, predictions, strict=False):
        axis.imshow(load_image(path))
        name, probability = best[0]
        axis.set_title(f"{name}  {probability:.0%}", fontsize=10)
    _save(figure, output)


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
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, name in zip(axes, ("loss", "top1"), strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            axis.plot(epochs, [float(row[key]) for row in rows], label=label)
        axis.set(xlabel="epoch", ylabel={"loss": "cross-entropy", "top1": "top-1"}[name])
        axis.grid(alpha=0.3)
    axes[0].legend()
    _save(figure, output)


def _save(figure, output):
    try:
        figure.savefig(output, dpi=150)
    finally:
        plt.close(figure)
