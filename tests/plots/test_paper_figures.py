"""The paper's figures: interaction over depth, bars of robustness, sweeps of networks."""

import itertools
import statistics

import matplotlib
import numpy as np
import pytest
from PIL import Image

from pit_keras.evaluation.robustness_table import measured_columns, paper_rows
from pit_keras.plots.paper_figures import (
    draw_interaction,
    draw_robustness,
    draw_sweep,
    mean_and_deviation,
    networks_of,
)


def network(family, width, seed, top1):
    values = {"loss": 1 - top1, "top1": top1, "val_loss": 1.0, "val_top1": top1 / 2}
    size = {"width": width, "macs": width**2, "macs_target": f"{width**2:g}", "epochs": 10}
    return {"family": family, **size, "seed": seed, **values}


SWEEP = [
    network("vit", width, seed, width / 100 + seed / 50)
    for width in (16, 4, 8)
    for seed in range(3)
]


def test_networks_are_ordered_by_width_with_all_their_seeds():
    networks = networks_of(SWEEP)
    assert [[r["width"] for r in seeds] for seeds in networks] == [[4] * 3, [8] * 3, [16] * 3]
    assert [r["seed"] for r in networks[0]] == [0, 1, 2]


def test_mean_and_sample_deviation():
    values = [r["top1"] for r in SWEEP[:3]]
    mean, deviation = mean_and_deviation(SWEEP[:3], "top1")
    assert mean == pytest.approx(sum(values) / 3)
    assert deviation == pytest.approx(statistics.stdev(values))
    assert mean_and_deviation(SWEEP[:1], "top1") == (pytest.approx(0.16), 0.0)


@pytest.mark.parametrize("rows", [SWEEP, SWEEP[:1], [*SWEEP, *[network("pit", 5, 0, 0.3)]]])
def test_a_sweep_is_drawn(tmp_path, rows):
    draw_sweep(rows, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def curve(name, shares, kind="measured", thresholds=(0.01, 0.1), weights="imagenet"):
    """Rows: one for each block and threshold."""
    network = {"model": name, "kind": kind, "weights": weights}
    return [
        {**network, "block": block, "threshold": threshold, "share": share}
        for block, of_block in enumerate(shares, 1)
        for threshold, share in zip(thresholds, of_block, strict=True)
    ]


def drawn(rows, path):
    draw_interaction(rows, path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def colours_in(picture):
    """Which of matplotlib's colours cover more than a few pixels, each by its number."""
    cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    levels = [255 * np.array(matplotlib.colors.to_rgb(colour)) for colour in cycle[:4]]
    is_near = [np.abs(picture - level).max(axis=-1) <= 2 for level in levels]
    return [number for number, near in enumerate(is_near) if near.sum() > 100]


PIT = curve("pit", [(0.2, 0.1), (0.9, 0.4), (1.0, 0.8)])
RESNET = curve("resnet", [(0.3, 0.3), (0.6, 0.6)], "approximation")


def test_a_panel_for_each_threshold_and_a_curve_for_each_network(tmp_path):
    picture = drawn(PIT + RESNET, tmp_path / "x.png")
    panels = np.split(picture[: picture.shape[0] * 3 // 4], 2, axis=1)
    assert [colours_in(panel) for panel in panels] == [[0, 1], [0, 1]]
    alone = drawn(RESNET, tmp_path / "x.png")
    assert colours_in(alone) == [0]
    four = curve("vit", [(0.1, 0.2, 0.3, 0.4)] * 2, thresholds=(0.1, 0.2, 0.3, 0.5))
    assert drawn(four, tmp_path / "x.png").shape[0] > picture.shape[0]


def test_every_share_name_kind_and_threshold_is_in_the_picture(tmp_path):
    first = drawn(PIT + RESNET, tmp_path / "x.png")
    np.testing.assert_array_equal(first, drawn(PIT + RESNET, tmp_path / "x.png"))
    for number, row in enumerate(PIT[2:4], 2):  # the second block, in both panels
        changed = [*PIT[:number], {**row, "share": row["share"] - 0.05}, *PIT[number + 1 :]]
        assert (first != drawn(changed + RESNET, tmp_path / "x.png")).any()
    for change in ({"model": "vit"}, {"kind": "approximation"}):
        changed = [{**row, **change} for row in PIT]
        assert (first != drawn(changed + RESNET, tmp_path / "x.png")).any()
    other = [{**row, "threshold": 2 * row["threshold"]} for row in PIT + RESNET]
    assert (first != drawn(other, tmp_path / "x.png")).any()


def test_names_are_no_formulas(tmp_path):
    draw_interaction(curve("_$x^{", [(0.1, 0.2)]), tmp_path / "x.pdf")
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")


def test_random_weights_are_told(tmp_path):
    shares = [(0.4, 0.2), (0.6, 0.1)]
    trained = drawn(curve("pit_s", shares), tmp_path / "trained.png")
    random = drawn(curve("pit_s", shares, weights="none"), tmp_path / "random.png")
    assert trained.shape == random.shape
    assert (trained != random).any()


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
