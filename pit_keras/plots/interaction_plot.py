"""Figure 5: spatial interaction over depth."""

import math

from matplotlib.figure import Figure

from pit_keras.plots.pictures import DPI, add_legend

MOST_COLUMNS = 3


def draw_interaction(rows, output):
    """Draws the interaction of each block, a panel per threshold, a curve per network.

    `rows` are those of `pit_keras.explain.interaction.interaction_of_source`, of any networks.
    Approximations are dashed.
    """
    if not rows:
        raise ValueError("There is nothing to draw: there are no rows of interaction.")
    thresholds = sorted({row["threshold"] for row in rows})
    names = list(dict.fromkeys(row["model"] for row in rows))
    columns = min(MOST_COLUMNS, len(thresholds))
    lines = math.ceil(len(thresholds) / columns)
    height = 3.4 * lines + 0.3 * len(names)  # the legend below the plots has a line per network
    figure = Figure(figsize=(max(4.5 * columns, 6), height), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    for threshold, axis in zip(thresholds, axes, strict=False):
        for number, name in enumerate(names):
            own = [row for row in rows if (row["model"], row["threshold"]) == (name, threshold)]
            axis.plot(
                [row["block"] for row in own],
                [100 * row["share"] for row in own],
                color=f"C{number}",
                linestyle="-" if own[0]["kind"] == "measured" else "--",
                marker=".",
                clip_on=False,
            )
        axis.set(xlabel="block", ylabel="spatial interaction (%)", ylim=(0, None))
        axis.set_title(f"attention above {threshold:.4g}")
        axis.grid(alpha=0.3)
    for axis in axes:
        axis.axis("off")
    notes = {row["model"]: _note(row) for row in rows}
    add_legend(figure, figure.axes[0].lines, [f"{name}{notes[name]}" for name in names])
    figure.savefig(output, dpi=DPI)


def _note(row):
    """What distinguishes a curve from a measurement of a trained network."""
    if row["kind"] != "measured":
        return f" ({row['kind']})"
    return " (random weights)" if row["weights"] == "none" else ""
