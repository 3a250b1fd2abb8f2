import statistics

import pytest

from pit_keras.plots.sweep_plots import draw_sweep, mean_and_deviation, networks_of


def row(family, width, seed, top1):
    values = {"loss": 1 - top1, "top1": top1, "val_loss": 1.0, "val_top1": top1 / 2}
    size = {"width": width, "macs": width**2, "macs_target": f"{width**2:g}", "epochs": 10}
    return {"family": family, **size, "seed": seed, **values}


ROWS = [
    row("vit", width, seed, width / 100 + seed / 50) for width in (16, 4, 8) for seed in range(3)
]


def test_networks_are_ordered_by_width_with_all_their_seeds():
    networks = networks_of(ROWS)
    assert [[r["width"] for r in seeds] for seeds in networks] == [[4] * 3, [8] * 3, [16] * 3]
    assert [r["seed"] for r in networks[0]] == [0, 1, 2]


def test_mean_and_sample_deviation():
    values = [r["top1"] for r in ROWS[:3]]
    mean, deviation = mean_and_deviation(ROWS[:3], "top1")
    assert mean == pytest.approx(sum(values) / 3)
    assert deviation == pytest.approx(statistics.stdev(values))
    assert mean_and_deviation(ROWS[:1], "top1") == (pytest.approx(0.16), 0.0)


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [*ROWS, *[row("pit", 5, 0, 0.3)]]])
def test_it_is_drawn(tmp_path, rows):
    draw_sweep(rows, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match="no run of the sweep is finished"):
        draw_sweep([], tmp_path / "sweep.png")
