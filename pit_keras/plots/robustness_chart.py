"""A bar chart of robustness results beside the paper's."""

import numpy as np
from matplotlib.figure import Figure

from pit_keras.plots.pictures import DPI, shortened

TITLES = {
    "standard": "standard",
    "occlusion": "occlusion",
    "imagenet_a": "ImageNet-A",
    "backgrounds": "backgrounds",
    "fgsm": "FGSM",
}
MOST_LETTERS_OF_MODEL = 40


def draw_robustness(measured, paper, columns, output):
    """Draws a group of bars for each accuracy that was measured, with a bar for each row.

    Args:
        measured: Rows of `pit_keras.evaluation.robustness_table`; what one lacks is left empty.
        paper: The paper's rows, which are drawn hatched.
        columns: The accuracies that are drawn, see `measured_columns` there.
        output: The picture to write; its ending decides the format.

    Returns:
        The `Figure`.
    """
    bars = [(row["model"], row, "") for row in measured]
    bars += [(f"paper: {paper_name(row)}", row, "///") for row in paper]
    width = 0.84 / len(bars)
    figure = Figure(
        figsize=(max(6, 1 + 0.28 * len(columns) * len(bars)), 4.2), layout="constrained"
    )
    axis = figure.subplots()
    for number, (label, row, hatch) in enumerate(bars):
        places = np.arange(len(columns)) + (number - (len(bars) - 1) / 2) * width
        heights = [100 * row.get(name, np.nan) for name in columns]
        drawn = axis.bar(
            places, heights, width, color=f"C{number % 10}", hatch=hatch, edgecolor="white"
        )
        drawn.set_label(shortened(label, MOST_LETTERS_OF_MODEL))
    axis.set(ylabel="top-1 (%)", ylim=(0, 100))
    axis.set_xticks(np.arange(len(columns)), [_title(name) for name in columns])
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    legend = figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
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
