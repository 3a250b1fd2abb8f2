"""The paper's figures and its table 5 as pictures, of networks measured here."""

import collections
import itertools
import math
import statistics

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from pit_keras.plots.pictures import add_legend, save_figure, shortened

MOST_COLUMNS = 3  # of panels of interaction
MOST_LETTERS_OF_MODEL = 40
SUITES = {
    "standard": "standard",
    "occlusion": "occlusion",
    "imagenet_a": "ImageNet-A",
    "backgrounds": "backgrounds",
    "fgsm": "FGSM",
}
SWEEP_PANELS = (("macs", "loss"), ("top1", "val_top1"), ("macs", "val_top1"))  # axes: x, y
SWEEP_LABELS = {
    "macs": "multiply-accumulates",
    "loss": "training loss",
    "top1": "training top-1",
    "val_top1": "validation top-1",
}


def draw_sweep(rows, output):
    """Figures 2 and 3: training loss over cost, validation over training accuracy, and validation
    accuracy over cost, a line for each family, a point for each network.

    A point is the mean over the seeds; its bars are one standard deviation to each side. `rows` are
    those of `pit_keras.measure.equal_cost.sweep_rows`.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (x, y) in zip(axes, SWEEP_PANELS, strict=True):
        for family in dict.fromkeys(row["family"] for row in rows):
            points = [row for row in rows if row["family"] == family]
            _draw_family(axis, family, networks_of(points), x, y)
        axis.set(xlabel=SWEEP_LABELS[x], ylabel=SWEEP_LABELS[y])
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
    save_figure(figure, output)


def networks_of(rows):
    """Rows of one family by network, narrowest first: a list of lists, one row a seed."""
    ordered = sorted(rows, key=lambda row: row["width"])
    return [list(seeds) for _, seeds in itertools.groupby(ordered, lambda row: row["width"])]


def mean_and_deviation(rows, column):
    """Mean over the seeds and standard deviation (of a sample); 0 for a single seed."""
    values = [row[column] for row in rows]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _draw_family(axis, family, networks, x, y):
    means, errors = [], []
    for name in (x, y):
        pairs = [mean_and_deviation(seeds, name) for seeds in networks]
        means.append([mean for mean, _ in pairs])
        errors.append([deviation or math.nan for _, deviation in pairs])  # no bar for 0
    style = {"marker": "o", "capsize": 3, "label": family.replace("_", " ")}
    axis.errorbar(*means, xerr=errors[0], yerr=errors[1], **style)


def draw_interaction(rows, output):
    """Figure 5: the interaction of each block, a panel per threshold, a curve per network.

    `rows` are those of `pit_keras.explain.interaction.interaction_of_source`, of any networks.
    Approximations are dashed.
    """
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
    save_figure(figure, output)


def _note(row):
    if row["kind"] != "measured":
        return f" ({row['kind']})"
    return " (random weights)" if row["weights"] == "none" else ""


def draw_robustness(measured, paper, columns, output):
    """Table 5: a group of bars for each of the accuracies `columns`, with a bar for each row.

    `measured` and `paper` are rows of `pit_keras.evaluation.robustness_table`; the paper's are
    hatched, missing values stay empty.
    """
    bars = [(row["model"], row, "") for row in measured]
    bars += [(f"paper: {paper_name(row)}", row, "///") for row in paper]
    width = 0.84 / len(bars)
    size = max(6, 1 + 0.28 * len(columns) * len(bars)), 4.2
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    handles, ticks = [], np.arange(len(columns))
    for number, (_, row, hatch) in enumerate(bars):
        places = ticks + (number - (len(bars) - 1) / 2) * width
        heights = [100 * row.get(name, np.nan) for name in columns]
        style = {"color": f"C{number % 10}", "hatch": hatch, "edgecolor": "white"}
        handles.append(axis.bar(places, heights, width, **style))
    axis.set(ylabel="top-1 (%)", ylim=(0, 100))
    axis.set_xticks(ticks, [_title(name) for name in columns])
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    names = [shortened(name, MOST_LETTERS_OF_MODEL) for name, *_ in bars]
    add_legend(figure, handles, names, ncols=2)
    save_figure(figure, output)
    return figure


def _title(column):
    """`fgsm_4/255` as "FGSM" and, below it, "4/255"."""
    suite = next(suite for suite in SUITES if column.startswith(suite))
    variation = column.removeprefix(suite).strip("_").replace("_", " ")
    return "\n".join(filter(None, (SUITES[suite], variation)))


def paper_name(row):
    """A row of the paper by its architecture and its training."""
    return f"{row['architecture']} ({row['training']})"
