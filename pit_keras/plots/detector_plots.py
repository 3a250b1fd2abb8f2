"""Pictures of how a detector works: matched boxes, and its position encoding."""

import numpy as np
from keras import ops
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pit_keras.models.boxes import centres_to_corners
from pit_keras.plots.pictures import save_figure


def draw_matching(boxes, target_boxes, target_names, costs, matches, output):
    """Draws which query of a detector is matched to which object, beside the cost of each pair.

    On the left are the objects, each in a colour, and the boxes of the queries, dashed, in the
    colour of their object or grey. On the right are the costs; those of matched pairs are framed.

    Args:
        boxes: (Q, 4), the queries' boxes, centre x, centre y, width and height as shares.
        target_boxes: (M, 4), the objects' boxes, likewise.
        costs: (M, Q), see `pit_keras.training.matching.matching_costs`.
        matches: Integers (M,), the query matched to each object; -1 for none.
    """
    boxes, target_boxes, costs, matches = map(
        ops.convert_to_numpy, (boxes, target_boxes, costs, matches)
    )
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    scene, table = figure.subplots(1, 2, width_ratios=(1, 1.2))
    matched = {int(query): target for target, query in enumerate(matches) if query >= 0}
    for target, (box, name) in enumerate(zip(_corners(target_boxes), target_names, strict=True)):
        _draw_box(scene, box, name, color=f"C{target}", linewidth=2.5)
    for query, box in enumerate(_corners(boxes)):
        color = f"C{matched[query]}" if query in matched else "grey"
        _draw_box(scene, box, f"query {query}", color=color, linestyle="--", below=True)
    scene.set(xlim=(0, 1), ylim=(1, 0), aspect="equal", xticks=[], yticks=[])
    _draw_costs(table, costs, matches, target_names)
    save_figure(figure, output)


def draw_positions(positions, channels, output):
    """Draws channels of a position encoding (H, W, C) as pictures, from -1, dark, to 1, bright."""
    positions = ops.convert_to_numpy(positions)
    figure = Figure(figsize=(1.6 * len(channels), 1.5), layout="constrained")
    axes = figure.subplots(1, len(channels), squeeze=False)[0]
    for axis, channel in zip(axes, channels, strict=True):
        axis.imshow(positions[..., channel], cmap="viridis", vmin=-1, vmax=1)
        axis.set_title(f"channel {channel}", fontsize=8)
        axis.axis("off")
    save_figure(figure, output)


def _corners(boxes):
    return ops.convert_to_numpy(centres_to_corners(boxes))


def _draw_box(axis, box, label, *, color, below=False, **style):
    left, top, right, bottom = box
    size = (right - left, bottom - top)
    axis.add_patch(Rectangle((left, top), *size, fill=False, edgecolor=color, **style))
    axis.annotate(
        label,
        (left, bottom if below else top),
        xytext=(3, 3 if below else -3),
        textcoords="offset points",
        color=color,
        fontsize=8,
        verticalalignment="bottom" if below else "top",
        parse_math=False,
    )


def _draw_costs(axis, costs, matches, target_names):
    """A table of costs, a row for each object; cheap pairs are bright."""
    axis.imshow(-costs, cmap="Greys_r", aspect="auto", alpha=0.4)
    for (target, query), cost in np.ndenumerate(costs):
        axis.text(query, target, f"{cost:.2f}", ha="center", va="center", fontsize=9)
    for target, query in enumerate(matches):
        if query >= 0:
            corner = (query - 0.47, target - 0.47)
            axis.add_patch(
                Rectangle(corner, 0.94, 0.94, fill=False, edgecolor=f"C{target}", linewidth=2.5)
            )
    queries = range(costs.shape[1])
    axis.set_xticks(queries, [f"query {query}" for query in queries])
    axis.set_yticks(range(len(costs)), target_names, parse_math=False)
    axis.tick_params(length=0)
    axis.set_title("costs", fontsize=10)
