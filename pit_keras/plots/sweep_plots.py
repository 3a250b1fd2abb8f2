"""The three panels of figures 2 and 3: how families of networks learn, at equal cost."""

import collections
import itertools
import math
import statistics

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

DPI = 150
PANELS = (("macs", "loss"), ("top1", "val_top1"), ("macs", "val_top1"))  # axes: x, y
LABELS = {
    "macs": "multiply-accumulates",
    "loss": "training loss",
    "top1": "training top-1",
    "val_top1": "validation top-1",
}


def draw_sweep(rows, output):
    """Draws training loss over cost, validation over training accuracy, and validation accuracy
    over cost: a line for each family, a point for each network.

    A point is the mean over the seeds; its bars are one standard deviation to each side. `rows` are
    those of `pit_keras.measure.sweep.sweep_rows`.
    """
    if not rows:
        raise ValueError("There is nothing to draw: no run of the sweep is finished.")
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (x, y) in zip(axes, PANELS, strict=True):
        for family in dict.fromkeys(row["family"] for row in rows):
            points = [row for row in rows if row["family"] == family]
            _draw_family(axis, family, networks_of(points), x, y)
        axis.set(xlabel=LABELS[x], ylabel=LABELS[y])
        axis.grid(alpha=0.3)
        if x == "macs":
            axis.set_xscale("log")
            axis.set_xticks([], minor=True)
            axis.set_xticks(sorted({float(row["macs_target"]) for row in rows}))
            axis.xaxis.set_major_formatter(EngFormatter())  # 4 M, not 4 x 10^6
    axes[0].legend()
    seeds = collections.Counter((row["family"], row["width"]) for row in rows).values()
    counts = " or ".join(map(str, sorted(set(seeds))))
    epochs = ", ".join(sorted({f"{row['epochs']:.0f}" for row in rows}))
    caption = f"after epoch {epochs}: mean over {counts} seeds, bars of one standard deviation"
    figure.suptitle(caption, fontsize=10)
    figure.savefig(output, dpi=DPI)


def networks_of(rows):
    """Rows of one family by network, narrowest first: a list of lists, one row a seed."""
    ordered = sorted(rows, key=lambda row: row["width"])
    return [list(seeds) for _, seeds in itertools.groupby(ordered, lambda row: row["width"])]


def mean_and_deviation(rows, column):
    """Mean over the seeds and standard deviation (of a sample); 0 for a single seed."""
    values = [row[column] for row in rows]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _draw_family(axis, family, networks, x, y):
    means, errors = {}, {}
    for name in (x, y):
        pairs = [mean_and_deviation(seeds, name) for seeds in networks]
        means[name] = [mean for mean, _ in pairs]
        errors[name] = [deviation or math.nan for _, deviation in pairs]
    axis.errorbar(
        means[x],
        means[y],
        xerr=None if x == "macs" else errors[x],
        yerr=errors[y],
        marker="o",
        capsize=3,
        label=family.replace("_", " "),
    )
