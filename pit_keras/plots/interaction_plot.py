"""Figure 5: spatial interaction over depth."""

import math

from matplotlib.figure import Figure  # not pyplot: no display, and nobody's backend is changed

from pit_keras.plots.pictures import DPI

MOST_COLUMNS = 3


def draw_interaction(rows, output):
    """Draws the interaction of each block over its number, a panel a threshold, a curve a network.

    Approximations are dashed.

    Args:
        rows: Those of `pit_keras.explain.interaction.interaction_of_source`, of any networks.
        output: The picture to write; its ending decides the format.

    Raises:
        ValueError: If there are no rows, or the format is unknown to matplotlib.
    """
    if not rows:
        raise ValueError("There is nothing to draw: there are no rows of interaction.")
    thresholds = sorted({row["threshold"] for row in rows})
    names = list(dict.fromkeys(row["model"] for row in rows))
    columns = min(MOST_COLUMNS, len(thresholds))
    lines = math.ceil(len(thresholds) / columns)
    height = 3.4 * lines + 0.3 * len(names)  # the legend below the plots has a line a network
    figure = Figure(figsize=(max(4.5 * columns, 6), height), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    for axis, threshold in zip(axes, thresholds, strict=False):
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
    _add_legend(figure, rows, names)
    figure.savefig(output, dpi=DPI)


def _add_legend(figure, rows, names):
    notes = {row["model"]: _note(row) for row in rows}
    # A legend leaves out a name that begins with an underscore, unless it is set afterwards.
    numbers = [str(number) for number in range(len(names))]
    legend = figure.legend(figure.axes[0].lines, numbers, loc="outside lower center")
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=f"{name}{notes[name]}", parse_math=False, fontsize=9)


def _note(row):
    """What has to be known of a curve, so that nobody takes it for something else."""
    if row["kind"] != "measured":
        return f" ({row['kind']})"
    return " (random weights)" if row["weights"] == "none" else ""
