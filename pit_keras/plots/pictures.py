"""Pictures: the curves of runs, calibration, and a token pooling.

An `output` is a file, whose ending decides the format, or a stream for PNG.
"""

import itertools
import math
import os
import pathlib

import numpy as np
from matplotlib.figure import Figure  # not pyplot: no display, and nobody's backend is changed

from pit_keras.runs.comparison import read_history, validation
from pit_keras.runs.run_folder import replacing

DPI = 150
MOST_IMAGES = 600  # matplotlib draws no more than 65,535 pixels, 189 rows
MOST_EXPLAINED = 100  # images, each in a row
# The panels of a history, {column: name}, each with these curves.
CLASSIFIER_PANELS = {"loss": "cross-entropy", "top1": "top-1"}
DETECTOR_PANELS = {"loss": "training loss", "AP": "AP"}
HISTORY_CURVES = ("training", "validation", "validation, averaged weights")
MOST_RUNS = 20  # in one picture
MOST_LETTERS = 26  # of a line above an image
MOST_LETTERS_OF_RUN = 58  # in the legend


def check_picture(output, images, most=MOST_IMAGES):
    """Checks, before long work, that matplotlib can draw so many images in such a file."""
    if images > most:
        raise ValueError(f"One picture holds at most {most} images; got {images}.")
    known = Figure().canvas.get_supported_filetypes()
    ending = str(output).rpartition(".")[2].lower()
    if ending not in known:
        raise ValueError(f"Cannot draw {output}: its ending must be one of {', '.join(known)}.")


def save_figure(figure, output, **options):
    """Writes a figure into a file, whole or not at all, or into a stream."""
    if hasattr(output, "write"):
        figure.savefig(output, dpi=DPI, **options)
        return
    with replacing(pathlib.Path(output)) as temporary:
        figure.savefig(temporary, dpi=DPI, **options)


def shortened(text, length):
    """A text of at most `length` letters, in one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def name_in_title(path):
    """A file's name, shortened; bytes that are no text are written as escapes."""
    name = os.path.basename(path).encode(errors="backslashreplace").decode()
    return shortened(name, MOST_LETTERS)


def draw_history(history, output, kept=None):
    """Draws the loss and top-1, or AP, of a run's `history.csv` over the epochs.

    `kept` is the epoch whose weights were kept, which a line marks; None for no line.
    """
    rows = read_history(history)
    if not rows:
        raise ValueError(f"{history} holds no finished epoch.")
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    known = set(itertools.chain(*rows))  # the columns that hold a number
    panels = CLASSIFIER_PANELS if "val_top1" in known else DETECTOR_PANELS
    for axis, (name, in_words) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        columns = {name: "C0", f"val_{name}": "C1", f"val_averaged_{name}": "C2"}
        for label, (column, color) in zip(HISTORY_CURVES, columns.items(), strict=True):
            if column in known:
                values = [row.get(column, math.nan) for row in rows]
                _draw_curve(axis, rows, values, label=label, color=color)
        _label_axis(axis, in_words)
        if kept is not None:
            axis.axvline(kept, color="grey", linestyle=":", label=f"kept: epoch {kept}")
        if axis.lines:
            axis.legend()
    save_figure(figure, output)


def draw_calibration(calibration, output):
    """Draws a `Calibration`: accuracy over probability, and a histogram of probabilities."""
    bins = len(calibration.images)
    left = np.arange(bins) / bins
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    reliability, histogram = figure.subplots(1, 2)
    reliability.plot([0, 1], [0, 1], color="grey", linestyle=":")
    reliability.plot(calibration.confidence, calibration.accuracy, marker="o", clip_on=False)
    reliability.set(xlim=(0, 1), ylim=(0, 1))
    _label_axis(reliability, "accuracy", over="probability")
    histogram.bar(left, calibration.images, width=1 / bins, align="edge", edgecolor="white")
    histogram.set_xlim(0, 1)
    _label_axis(histogram, "images", over="probability")
    save_figure(figure, output)


def draw_runs(runs, output):
    """Draws the training loss and the validation top-1, or AP, of runs over their epochs.

    The better validation of raw and averaged weights is drawn. Returns the number of runs drawn,
    the first `MOST_RUNS` with a finished epoch.
    """
    runs = [run for run in runs if run.history][:MOST_RUNS]
    if not runs:
        raise ValueError("There is nothing to draw: no run has finished an epoch.")
    height = 3.5 + 0.2 * math.ceil(len(runs) / 2)  # the legend below the plots has two columns
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots(1, 2)
    styles = itertools.product(("-", "--"), [f"C{number}" for number in range(10)])
    for run, (line, color) in zip(runs, styles, strict=False):
        losses = [row.get("loss", math.nan) for row in run.history]
        best = [validation(row, run.figure) for row in run.history]
        for axis, values in zip(axes, (losses, best), strict=True):
            _draw_curve(axis, run.history, values, linestyle=line, color=color)
    _label_axis(axes[0], "training loss")
    figures = sorted({CLASSIFIER_PANELS.get(run.figure, run.figure) for run in runs}, reverse=True)
    _label_axis(axes[1], f"validation {' or '.join(figures)}")
    add_legend(figure, axes[0].lines, [_end_of(run.run) for run in runs], "lower left", ncols=2)
    save_figure(figure, output)
    return len(runs)


def add_legend(figure, handles, names, place="lower center", ncols=1):
    """A legend below the plots, with names as they are: matplotlib would read formulas, and leave
    out a name that begins with an underscore.
    """
    numbers = [str(number) for number in range(len(names))]
    legend = figure.legend(handles, numbers, loc=f"outside {place}", ncols=ncols)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False, fontsize=8)


def draw_token_pooling(step, channels, output):
    """Draws a token pooling, a row for each channel: its map, each of its filters, their maps.

    Maps go from their least to their greatest value; of filters white is 0, red positive, blue
    negative. `step` is a `pit_keras.explain.inside_pooling.PoolingStep`, whose first image is
    drawn; `channels` are numbers of channels of the map before.
    """
    multiplier = step.kernel.shape[-1]
    columns = 1 + 2 * multiplier
    figure = Figure(figsize=(1.6 * columns, 1.7 * len(channels)), layout="constrained")
    axes = figure.subplots(len(channels), columns, squeeze=False)
    for row, channel in zip(axes, channels, strict=True):
        _draw_map(row[0], step.map_before[0, ..., channel], f"channel {channel}")
        for number in range(multiplier):
            after = multiplier * channel + number
            _draw_filter(row[1 + 2 * number], step.kernel[..., channel, number])
            _draw_map(row[2 + 2 * number], step.map_after[0, ..., after], f"channel {after}")
    save_figure(figure, output)


def _draw_map(axis, values, title):
    axis.imshow(values, cmap="viridis")
    axis.set_title("{}: {} x {}".format(title, *values.shape), fontsize=8)
    axis.axis("off")


def _draw_filter(axis, values):
    largest = np.abs(values).max() or 1.0
    axis.imshow(values, cmap="RdBu_r", vmin=-largest, vmax=largest)
    axis.set_title(f"filter, sum {values.sum():.2f}", fontsize=8)
    axis.set(xticks=[], yticks=[])


def _end_of(name):
    """A run's name, or its end, in which runs of one folder differ."""
    name = name.encode(errors="backslashreplace").decode()  # a file's name may not be text
    return name if len(name) <= MOST_LETTERS_OF_RUN else f"…{name[1 - MOST_LETTERS_OF_RUN :]}"


def _draw_curve(axis, rows, values, **style):
    """Values over the epochs of a history; a single one is a dot."""
    epochs = [row["epoch"] for row in rows]
    axis.plot(epochs, values, marker="o" if len(rows) == 1 else None, **style)


def _label_axis(axis, name, over="epoch"):
    axis.set(xlabel=over, ylabel=name)
    if over == "epoch":
        axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
