"""Pictures of where decisions come from: the rollout of each stage over the image."""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure  # not pyplot, which needs a display and has global state

from pit_keras.data.preprocessing import load_image, normalise, resize_and_crop
from pit_keras.explain.rollout import Rollout, token_centres
from pit_keras.plots.pictures import name_in_title, save_figure

COLORS = "inferno"
KEY_INCHES = 0.5


def draw_explanations(trained, paths, predictions, output):
    """Draws images as the model sees them, and beside each an overlay for each stage.

    An overlay is the stage's `Rollout`, from its smallest value to its largest, as a key of colours
    says. All but the last stage's are smoothed, see `without_lattice`. `paths` are at most
    `pit_keras.plots.pictures.MOST_EXPLAINED` image files, `predictions` have for each a list of
    (class name, probability), likeliest first.
    """
    data, rollout = trained.data, Rollout(trained.model)
    first, spacings = token_centres(trained.model)
    columns = 1 + len(spacings)
    height, width = data.image_size
    size = 2 * columns, (2 * height / width + 0.45) * len(predictions) + KEY_INCHES
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(len(predictions), columns, squeeze=False)
    for axes, path, best in zip(rows, paths, predictions, strict=True):
        image = load_image(path, data.apply_orientation)
        crop = resize_and_crop(image, data.image_size, data.eval_crop).numpy()
        shares = rollout(normalise(crop, data.mean, data.std)[None])
        *pooled, last = (shares_of_stage[0] for shares_of_stage in shares)
        name, probability = best[0]
        words = f"{name_in_title(path)}\n{name}  {probability:.0%}"
        axes[0].set_title(words, fontsize=9, parse_math=False)
        for axis in axes:
            axis.axis("off")
            axis.imshow(crop.astype("uint8"))
        maps = [*map(without_lattice, pooled), last]
        for stage, (axis, shares) in enumerate(zip(axes[1:], maps, strict=True), 1):
            draw_overlay(axis, shares, first, spacings[stage - 1])
            axis.set_title(f"stage {stage}: {shares.shape[0]} x {shares.shape[1]}", fontsize=9)
    _draw_key(figure, rows)
    save_figure(figure, output)


def _draw_key(figure, rows):
    """What the colours of the overlays say, below them."""
    key = figure.colorbar(
        ScalarMappable(cmap=COLORS),
        ax=rows.ravel().tolist(),
        location="bottom",
        aspect=60,
        fraction=KEY_INCHES / 2 / figure.get_figheight(),
        label="share of the decision, within each picture",
    )
    key.set_ticks([0, 1], labels=["least", "most"])
    key.ax.tick_params(labelsize=8)
    key.ax.xaxis.label.set_size(8)


def without_lattice(shares):
    """A map (h, w) smoothed by weights 1 : 2 : 1 in both axes.

    Every second token lies under two windows of the pooling that follows, and so has a larger share
    wherever on the image it is. That hides the differences between places.
    """
    for _ in range(2):
        padded = np.pad(shares, ((1, 1), (0, 0)), mode="edge")
        shares = ((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4).T
    return shares


def draw_overlay(axis, shares, first, spacing):
    """Draws a map (h, w) over the image on an axis; `first` and `spacing` as in `token_centres`."""
    limits = axis.get_xlim(), axis.get_ylim()
    # Tokens do not reach the image's border everywhere; beyond, the outermost ones are repeated.
    shares = np.pad(shares, 1, mode="edge")
    start = first - 1.5 * spacing
    bottom, right = (start + spacing * side for side in shares.shape)
    axis.imshow(
        shares,
        cmap=COLORS,
        alpha=0.6,
        extent=(start, right, bottom, start),
        interpolation="bilinear",
    )
    axis.set(xlim=limits[0], ylim=limits[1])
