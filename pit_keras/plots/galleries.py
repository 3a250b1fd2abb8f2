"""Galleries: images under their predictions or labels, and images with boxes, drawn by keras-cv.

No other module imports keras-cv, and this one only when it draws. Where that fails, matplotlib
draws the images and boxes plainly, and a sentence on stderr says so. Matplotlib writes all text:
keras-cv has no titles, and cuts off a label at the image's border.
"""

import functools
import math
import sys

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from pit_keras.data.preprocessing import load_image
from pit_keras.plots.pictures import DPI, MOST_LETTERS, name_in_title, save_figure, shortened

COLUMNS = 6
WIDTH = 2  # inches of an image
DETECTED_COLUMNS = 3
DETECTED_WIDTH = 4  # inches
MOST_DETECTED = 150  # images
MOST_DETECTED_SHARP = 48  # more are coarser: keras-cv keeps pixels with boxes in 16 bytes
HIGHEST = 1.6  # times as high as wide
BATCH_COLUMNS = 8
MOST_BATCH_IMAGES = 16
LINE = 0.16  # inches
TRUE_COLOR, FOUND_COLOR = (0, 188, 212), (255, 235, 59)  # of boxes, keras-cv's


def draw_predictions(paths, predictions, output, apply_orientation=False):
    """Draws image files in a grid, each under its name and the likeliest class of `predict`."""
    best = [f"{of_image[0][0]}  {of_image[0][1]:.0%}" for of_image in predictions]
    titles = [f"{name_in_title(path)}\n{words}" for path, words in zip(paths, best, strict=True)]
    images = (load_image(path, apply_orientation) for path in paths)
    _draw_gallery(images, output, COLUMNS, WIDTH, titles)


def draw_detections(paths, detections, output, apply_orientation=False):
    """Draws image files in a grid, each under its name, with the boxes of its `FoundObject`s."""
    images = (load_image(path, apply_orientation) for path in paths)
    titles = list(map(name_in_title, paths))
    _draw_gallery(images, output, DETECTED_COLUMNS, DETECTED_WIDTH, titles, objects=detections)


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
    which = "" if shown == batch_size else f": the first {shown} of its {batch_size} images"
    rows = math.ceil(shown / BATCH_COLUMNS)
    columns = max(math.ceil(shown / rows), 2)  # a heading needs two columns
    white, empty = np.full(batches[0][0].shape[1:], 255, np.uint8), rows * columns - shown
    images, titles, objects, headings = [], [], [], {}
    for number, (of_batch, labels) in enumerate(batches, 1):
        headings[len(images)] = f"Batch {number}{which}"
        drawn = np.clip(of_batch[:shown] * np.asarray(std) + np.asarray(mean), 0, 1)
        images += [*np.rint(255 * drawn).astype("uint8"), *[white] * empty]
        if isinstance(labels[0], list):
            objects += [*labels[:shown], *[[]] * empty]
            titles += [""] * rows * columns
        else:
            titles += [label_in_words(label, class_names) for label in labels[:shown]]
            titles += [""] * empty
    _draw_gallery(images, output, columns, WIDTH, titles, headings, objects)


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


def _draw_gallery(images, output, columns, width, titles, headings=None, objects=None):
    """Draws uint8 images (H, W, 3) in rows, each `width` inches wide and below its title.

    `headings` are {number of an image: text above its row}, `objects` for each image `FoundObject`.
    """
    columns = min(columns, len(titles))
    rows = math.ceil(len(titles) / columns)
    is_coarse = len(objects or []) > MOST_DETECTED_SHARP
    side = width * DPI // (2 if is_coarse else 1)
    canvas, places = _on_one_canvas(images, rows * columns, side)
    objects = [
        [each._replace(box=factor * np.array(each.box) + [left, 0, left, 0]) for each in of_image]
        for of_image, (factor, left) in zip(objects or [], places, strict=False)
    ]
    visualization = _visualization()
    if visualization is None:
        figure = _plain(canvas, objects, rows, columns)
    else:
        figure = _by_keras_cv(visualization, canvas, objects, rows, columns)
    height = width * min(canvas.shape[1] / canvas.shape[2], HIGHEST)
    lines = 1.5 + max(title.count("\n") for title in titles) + bool(headings)
    figure.set_size_inches(width * columns, (height + LINE * lines) * rows)
    figure.set_layout_engine("constrained")
    for axis, title in zip(figure.axes, titles, strict=False):
        axis.set_title(title, fontsize=9, parse_math=False)
    for number, heading in (headings or {}).items():
        below = max(title.count("\n") for title in titles[number : number + columns]) + 1
        figure.axes[number].set_title(heading + "\n" * below, loc="left", fontsize=9)
    for axis, of_image in zip(figure.axes, objects, strict=False):
        for each in reversed(of_image):  # the surest in front
            _write_label(axis, each, *canvas.shape[1:3])
    save_figure(figure, output, facecolor="white")


def _on_one_canvas(images, count, side):
    """Images (count, H, W, 3) of one size, as keras-cv takes them, filled up with white.

    Large images are scaled to at most `side` pixels a side, small ones by a whole factor. Returns
    also each image's factor and how far it is from the left.
    """
    scaled, factors = [], []
    for image in images:
        longest = max(image.shape[:2])
        factors.append(side // longest or side / longest)
        size = [max(1, round(factors[-1] * length)) for length in image.shape[1::-1]]
        scaled.append(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)))
    height, width = (max(image.shape[axis] for image in scaled) for axis in (0, 1))
    canvas = np.full((count, height, width, 3), 255, np.uint8)
    lefts = [(width - image.shape[1]) // 2 for image in scaled]
    for place, image, left in zip(canvas, scaled, lefts, strict=False):
        place[: image.shape[0], left : left + image.shape[1]] = image
    return canvas, list(zip(factors, lefts, strict=True))


@functools.cache
def _visualization():
    """The functions of keras-cv that draw; None, and a sentence, where they cannot be imported."""
    try:
        import cv2  # noqa: F401  keras-cv asks for it only when it draws boxes
        from keras_cv import visualization
    except Exception as error:  # a later Keras may break more than an import
        print(
            f"keras-cv cannot draw ({error}), so pictures are drawn plainly; install it with "
            "`pip install keras-cv opencv-python-headless`.",
            file=sys.stderr,
        )
        return None
    return visualization


def _by_keras_cv(visualization, images, objects, rows, columns):
    import matplotlib.pyplot as plt

    if objects:
        truth, found = (_boxes(objects, len(images), is_true) for is_true in (True, False))
        figure = visualization.plot_bounding_box_gallery(
            images, (0, 255), "xyxy", truth, found, TRUE_COLOR, FOUND_COLOR, rows=rows, cols=columns
        )
    else:
        figure = visualization.plot_image_gallery(images, (0, 255), rows=rows, cols=columns)
    plt.close(figure)  # of pyplot's figures, which a notebook would show
    figure.set_frameon(True)
    return figure


def _boxes(objects, count, is_true):
    """True or found boxes as keras-cv takes them, filled up with the class -1; None for none."""
    drawn = [
        [each.box for each in of_image if (each.score is None) == is_true] for of_image in objects
    ]
    if not any(drawn):
        return None
    boxes = np.zeros((count, max(map(len, drawn)), 4), "float32")
    classes = np.full(boxes.shape[:2], -1.0, "float32")
    for number, of_image in enumerate(drawn):
        boxes[number, : len(of_image)] = np.reshape(of_image, (-1, 4))
        classes[number, : len(of_image)] = 0
    return {"boxes": boxes, "classes": classes}


def _plain(images, objects, rows, columns):
    figure = Figure()
    for axis, image in zip(figure.subplots(rows, columns, squeeze=False).flat, images, strict=True):
        axis.imshow(image)
        axis.axis("off")
    for axis, of_image in zip(figure.axes, objects, strict=False):
        for each in of_image:
            left, top, right, bottom = each.box
            size = right - left, bottom - top
            axis.add_patch(Rectangle((left, top), *size, fill=False, edgecolor=_color(each)))
    return figure


def _color(each):
    return np.divide(TRUE_COLOR if each.score is None else FOUND_COLOR, 255)


def _write_label(axis, each, height, width):
    """The label of a box, at an upper corner and within the image."""
    left, top, right, _ = each.box
    name = shortened(each.name, MOST_LETTERS)
    has_room_above, has_room_right = top > 0.06 * height, left < 0.7 * width
    axis.text(
        left if has_room_right else right,
        top,
        name if each.score is None else f"{name} {each.score:.0%}",
        fontsize=9,
        verticalalignment="bottom" if has_room_above else "top",
        horizontalalignment="left" if has_room_right else "right",
        bbox={"facecolor": _color(each), "edgecolor": "none", "pad": 1.5},
        parse_math=False,
    )
