"""Pictures: predictions under images, batches of training images, and the curves of runs.

An `output` is a file, whose ending decides the format, or a stream for PNG.
"""

import itertools
import math

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure  # not pyplot: no display, and nobody's backend is changed
from matplotlib.patches import Rectangle

from pit_keras.data.preprocessing import load_image
from pit_keras.runs.comparison import read_history, validation

COLUMNS = 6
DPI = 150
MOST_IMAGES = 600  # matplotlib draws no more than 65,535 pixels, 189 rows
DETECTED_COLUMNS = 3
DETECTED_WIDTH = 5  # inches
HIGHEST_DETECTED = 1.6  # times as high as wide
MOST_DETECTED = 150  # images, in 50 rows of at most 8 inches
MOST_DETECTED_PIXELS = 1500  # of a drawn image's side, twice what is seen
# The strong colours first, then the pale ones; then again.
CLASS_COLORS = colormaps["tab20"].colors[::2] + colormaps["tab20"].colors[1::2]
MOST_EXPLAINED = 100  # images, each in a row
MOST_PIXELS = 600  # of a drawn image's side, twice what is seen
BATCH_COLUMNS = 8
MOST_BATCH_IMAGES = 16
MOST_LETTERS = 26  # of a line above an image
# The panels of a history, {column: name}, each with these curves.
CLASSIFIER_PANELS = {"loss": "cross-entropy", "top1": "top-1"}
DETECTOR_PANELS = {"loss": "training loss", "AP": "AP"}
HISTORY_CURVES = ("training", "validation", "validation, averaged weights")
MOST_RUNS = 20  # in one picture
MOST_LETTERS_OF_RUN = 58  # in the legend


def check_picture(output, images, most=MOST_IMAGES):
    """Checks, before long work, that matplotlib can draw so many images in such a file."""
    if images > most:
        raise ValueError(f"One picture holds at most {most} images; got {images}.")
    known = Figure().canvas.get_supported_filetypes()
    ending = str(output).rpartition(".")[2].lower()
    if ending not in known:
        raise ValueError(f"Cannot draw {output}: its ending must be one of {', '.join(known)}.")


def draw_predictions(paths, predictions, output):
    """Draws image files in a grid, each under its likeliest class.

    Args:
        predictions: For each image a list of (class name, probability), likeliest first.
    """
    columns = min(COLUMNS, len(paths))
    rows = math.ceil(len(paths) / columns)
    figure = Figure(figsize=(2 * columns, 2.3 * rows), layout="constrained")
    axes = _empty_axes(figure, rows, columns)
    for axis, path, best in zip(axes, paths, predictions, strict=False):
        axis.imshow(_thinned(load_image(path), MOST_PIXELS))
        name, probability = best[0]
        axis.set_title(f"{name}  {probability:.0%}", fontsize=10, parse_math=False)
    figure.savefig(output, dpi=DPI)


def draw_detections(paths, detections, output):
    """Draws image files in a grid, with a box and a name around each object.

    Args:
        detections: For each image a list of `pit_keras.runs.found_objects.FoundObject`.
    """
    images, sizes = [], []
    for path in paths:
        image = load_image(path)
        images.append(_thinned(image, MOST_DETECTED_PIXELS))
        sizes.append(image.shape[:2])
    columns = min(DETECTED_COLUMNS, len(paths))
    heights = [
        DETECTED_WIDTH * min(max(h / w for h, w in sizes[at : at + columns]), HIGHEST_DETECTED)
        for at in range(0, len(sizes), columns)
    ]
    figure = Figure(figsize=(DETECTED_WIDTH * columns, sum(heights)), layout="constrained")
    axes = _empty_axes(figure, len(heights), columns, height_ratios=heights)
    for axis, pixels, (height, width), objects in zip(
        axes, images, sizes, detections, strict=False
    ):
        axis.set_anchor("N")
        axis.imshow(pixels, extent=(0, width, height, 0))  # boxes are in pixels of the whole image
        for each in reversed(objects):  # the surest in front
            _draw_box(axis, each, height, width)
    figure.savefig(output, dpi=DPI)


def _empty_axes(figure, rows, columns, **options):
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.axis("off")
    return axes.flat


def _thinned(image, most):
    """An image with about `most` pixels on a side at most."""
    step = math.ceil(max(image.shape) / most)
    return image[::step, ::step].copy()  # a view would keep all of it in memory


def _draw_box(axis, detection, height, width):
    """A box, with its label at an upper corner and within the image."""
    left, top, right, bottom = detection.box
    color = CLASS_COLORS[detection.label % len(CLASS_COLORS)]
    axis.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=color, linewidth=2)
    )
    name = shortened(detection.name, MOST_LETTERS)
    luminance = np.dot((0.299, 0.587, 0.114), to_rgb(color))
    has_room_above, has_room_right = top > 0.06 * height, left < 0.7 * width
    axis.text(
        left if has_room_right else right,
        top,
        name if detection.score is None else f"{name} {detection.score:.0%}",
        fontsize=9,
        color="white" if luminance < 0.5 else "black",
        verticalalignment="bottom" if has_room_above else "top",
        horizontalalignment="left" if has_room_right else "right",
        bbox={"facecolor": color, "edgecolor": "none", "pad": 1.5},
        parse_math=False,
    )


def draw_batches(batches, class_names, output, *, batch_size, mean, std):
    """Draws batches as a model sees them, each a block of images with labels or boxes.

    Args:
        batches: Pairs: images, float (n, H, W, 3), normalised; and for each its label, float
            (classes,), perhaps mixed, or a list of `pit_keras.runs.found_objects.FoundObject` with
            boxes in its pixels. The first `MOST_BATCH_IMAGES` are drawn.
        batch_size: Images of a whole batch; `batches` may hold fewer.
        mean, std: The normalisation of the images.
    """
    shown = min(len(batches[0][0]), MOST_BATCH_IMAGES)
    rows = math.ceil(shown / BATCH_COLUMNS)
    columns = math.ceil(shown / rows)
    size = 2 * max(columns, 2), (2.4 * rows + 0.4) * len(batches)  # a title needs two columns
    figure = Figure(figsize=size, layout="constrained")
    blocks = figure.subfigures(len(batches), squeeze=False).flat
    for number, (block, (images, labels)) in enumerate(zip(blocks, batches, strict=True), 1):
        images = np.clip(images[:shown] * np.asarray(std) + np.asarray(mean), 0, 1)
        block.suptitle(batch_title(number, shown, batch_size))
        axes = _empty_axes(block, rows, columns)
        for axis, image, label in zip(axes, images, labels, strict=False):
            axis.imshow(image)
            if isinstance(label, list):
                for each in label:
                    _draw_box(axis, each, *image.shape[:2])
            else:
                axis.set_title(label_in_words(label, class_names), fontsize=8, parse_math=False)
    figure.savefig(output, dpi=DPI)


def batch_title(number, shown, batch_size):
    if shown == batch_size:
        return f"Batch {number}"
    return f"Batch {number}: the first {shown} of its {batch_size} images"


def label_in_words(label, class_names, most=3):
    """The largest shares of a label (classes,): `cat`, or `cat: 0.62 | dog: 0.38`.

    Shares that round to 0.00 are left out. Long ones are in lines, long names are shortened.
    """
    largest = [k for k in np.argsort(-label, kind="stable")[:most] if label[k] >= 0.005]
    if len(largest) == 1:
        return shortened(class_names[largest[0]], MOST_LETTERS)
    shares = [(class_names[k], f": {label[k]:.2f}") for k in largest]
    line = " | ".join(name + share for name, share in shares)
    if len(line) <= MOST_LETTERS:
        return line
    return "\n".join(shortened(name, MOST_LETTERS - 6) + share for name, share in shares)


def shortened(text, length):
    """A text of at most `length` letters, in one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def draw_history(history, output):
    """Draws the loss and top-1, or AP, of a run's `history.csv` over the epochs.

    There are curves of training, of validation, and of validation with averaged weights.
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
        if axis.lines:
            axis.legend()
    figure.savefig(output, dpi=DPI)


def draw_calibration(calibration, output):
    """Draws a reliability diagram: accuracy over probability, and a histogram of probabilities.

    Args:
        calibration: A `pit_keras.evaluation.predictions.Calibration`.
    """
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
    figure.savefig(output, dpi=DPI)


def draw_runs(runs, output):
    """Draws the training loss and the validation top-1, or AP, of runs over their epochs.

    The better validation of raw and averaged weights is drawn, of the first `MOST_RUNS` runs with a
    finished epoch. Returns their number.
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
    figure.savefig(output, dpi=DPI)
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
    negative.

    Args:
        step: A `pit_keras.explain.inside_pooling.PoolingStep`; its first image is drawn.
        channels: Numbers of channels of the map before.
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
    figure.savefig(output, dpi=DPI)


def _draw_map(axis, values, title):
    height, width = values.shape
    axis.imshow(values, cmap="viridis")
    axis.set_title(f"{title}: {height} x {width}", fontsize=8)
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
    """Values over the epochs of a history, counted from 1; a single one is a dot."""
    epochs = [row["epoch"] + 1 for row in rows]
    axis.plot(epochs, values, marker="o" if len(rows) == 1 else None, **style)


def _label_axis(axis, name, over="epoch"):
    axis.set(xlabel=over, ylabel=name)
    axis.grid(alpha=0.3)
