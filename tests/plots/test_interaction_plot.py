import matplotlib
import numpy as np
import pytest
from PIL import Image

from pit_keras.plots.interaction_plot import draw_interaction


def rows(name, shares, kind="measured", thresholds=(0.01, 0.1), weights="imagenet"):
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


PIT = rows("pit", [(0.2, 0.1), (0.9, 0.4), (1.0, 0.8)])
RESNET = rows("resnet", [(0.3, 0.3), (0.6, 0.6)], "approximation")


def test_a_panel_for_each_threshold_and_a_curve_for_each_network(tmp_path):
    picture = drawn(PIT + RESNET, tmp_path / "x.png")
    panels = np.split(picture[: picture.shape[0] * 3 // 4], 2, axis=1)
    assert [colours_in(panel) for panel in panels] == [[0, 1], [0, 1]]
    alone = drawn(RESNET, tmp_path / "x.png")
    assert colours_in(alone) == [0]
    four = rows("vit", [(0.1, 0.2, 0.3, 0.4)] * 2, thresholds=(0.1, 0.2, 0.3, 0.5))
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
    draw_interaction(rows("_$x^{", [(0.1, 0.2)]), tmp_path / "x.pdf")
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="There is nothing to draw"):
        draw_interaction([], tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_random_weights_are_told(tmp_path):
    shares = [(0.4, 0.2), (0.6, 0.1)]
    trained = drawn(rows("pit_s", shares), tmp_path / "trained.png")
    random = drawn(rows("pit_s", shares, weights="none"), tmp_path / "random.png")
    assert trained.shape == random.shape
    assert (trained != random).any()
