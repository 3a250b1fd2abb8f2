"""A bar chart of robustness results beside the paper's."""

import numpy as np
from matplotlib.figure import Figure

from pit_keras.plots.pictures import DPI, add_legend, shortened

TITLES = {
    "standard": "standard",
    "occlusion": "occlusion",
    "imagenet_a": "ImageNet-A",
    "backgrounds": "backgrounds",
    "fgsm": "FGSM",
}
MOST_LETTERS_OF_MODEL = 40


def draw_robustness(measured, paper, columns, output):
    """Draws a group of bars for each measured accuracy, with a bar for each row.

    Args:
        measured: Rows of `pit_keras.evaluation.robustness_table`; missing values stay empty.
        paper: The paper's rows, which are hatched.
        columns: The accuracies, see `measured_columns` there.
    """
    bars = [(row["model"], row, "") for row in measured]
    bars += [(f"paper: {paper_name(row)}", row, "///") for row in paper]
    width = 0.84 / len(bars)
    size = max(6, 1 + 0.28 * len(columns) * len(bars)), 4.2
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    handles = []
    for number, (_, row, hatch) in enumerate(bars):
        places = np.arange(len(columns)) + (number - (len(bars) - 1) / 2) * width
        heights = [100 * row.get(name, np.nan) for name in columns]
        style = {"color": f"C{number % 10}", "hatch": hatch, "edgecolor": "white"}
        handles.append(axis.bar(places, heights, width, **style))
    axis.set(ylabel="top-1 (%)", ylim=(0, 100))
    axis.set_xticks(np.arange(len(columns)), [_title(name) for name in columns])
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    names = [shortened(name, MOST_LETTERS_OF_MODEL) for name, *_ in bars]
    add_legend(figure, handles, names, ncols=2)
    figure.savefig(output, dpi=DPI)
    return figure


def _title(column):
    """`fgsm_4/255` as "FGSM" and, below it, "4/255"."""
    suite = next(suite for suite in TITLES if column.startswith(suite))
    variation = column.removeprefix(suite).strip("_").replace("_", " ")
    return "\n".join(filter(None, (TITLES[suite], variation)))


def paper_name(row):
    """A row of the paper by its architecture and its training."""
    return f"{row['architecture']} ({row['training']})"
