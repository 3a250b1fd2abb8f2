"""The bars of the chart: one for each row and column, as high as the accuracy in percent."""

import itertools

import numpy as np
import pytest
from PIL import Image

from pit_keras.evaluation.robustness_table import measured_columns, paper_rows
from pit_keras.plots.robustness_chart import draw_robustness


def test_measured_and_published_rows_stand_side_by_side(tmp_path):
    measured = [
        {"model": "a$b$.keras", "standard": 0.5, "fgsm": 0.25, "fgsm_4/255": 0.9},
        {"model": "x" * 60, "standard": 0.75, "backgrounds": 0.125},
    ]
    columns = measured_columns(measured)
    figure = draw_robustness(measured, paper_rows(), columns, tmp_path / "chart.png")

    (axis,) = figure.axes
    names = [label.get_text() for label in axis.get_xticklabels()]
    # No one measured the others.
    assert names == ["standard", "backgrounds", "FGSM", "FGSM\n4/255"]
    heights = [[bar.get_height() for bar in bars] for bars in axis.containers]
    np.testing.assert_allclose(
        heights,
        [
            [50, np.nan, 25, 90],
            [75, 12.5, np.nan, np.nan],
            [79.8, 17.6, 27.2, np.nan],
            [80.9, 21.0, 29.5, np.nan],
            [76.0, 22.3, 7.1, np.nan],
            [79.0, 32.7, 24.7, np.nan],
        ],
    )
    hatches = [bars[0].get_hatch() for bars in axis.containers]
    assert hatches == ["", "", "///", "///", "///", "///"]
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[0] == "a$b$.keras"
    assert len(labels[1]) == 40
    assert labels[2:4] == ["paper: vit_s (deit)", "paper: pit_s (deit)"]
    with Image.open(tmp_path / "chart.png") as picture:
        assert min(picture.size) > 400


def test_bars_of_a_group_do_not_overlap(tmp_path):
    measured = [{"model": str(number), "standard": 0.5} for number in range(7)]
    figure = draw_robustness(measured, [], ["standard"], tmp_path / "chart.svg")
    bars = [bars[0] for bars in figure.axes[0].containers]
    edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
    assert edges[0][0] > -0.5
    assert edges[-1][1] < 0.5
    for (_, end), (start, _) in itertools.pairwise(edges):
        assert start == pytest.approx(end)
