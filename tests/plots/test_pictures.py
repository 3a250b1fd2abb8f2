"""Pictures that are written to files, where there is no display."""

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from pit_keras.evaluation.predictions import Calibration
from pit_keras.explain.inside_pooling import PoolingStep
from pit_keras.plots.pictures import (
    DPI,
    check_picture,
    draw_calibration,
    draw_history,
    draw_token_pooling,
)

HISTORY = "epoch,loss,top1,val_loss,val_top1\n"


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_no_more_images_than_a_picture_holds():
    check_picture("out.png", 600)
    with pytest.raises(ValueError, match="One picture holds at most 600 images; got 601"):
        check_picture("out.png", 601)


def test_an_unknown_ending_is_an_error_and_nothing_is_written(tmp_path):
    (tmp_path / "history.csv").write_text(HISTORY + "0,2,0.1,2,0.2\n")
    for name in ("out.xyz", "out.docx"):
        with pytest.raises(ValueError, match=r"Cannot draw .*out.*its ending must be one of .*png"):
            check_picture(tmp_path / name, 1)
        with pytest.raises(ValueError, match="not supported"):
            draw_history(tmp_path / "history.csv", tmp_path / name)
        assert not (tmp_path / name).exists()
    check_picture("out.png", 1)


@pytest.mark.parametrize("averaged", [False, True])
def test_a_history_becomes_two_plots_of_its_curves(averaged, tmp_path):
    columns, more = (",val_averaged_loss,val_averaged_top1", ",1.0,0.8") if averaged else ("", "")
    rows = ["0,2.3,0.1,2.2,0.2", "1,1.5,0.4,1.6,0.5", "2,0.9,0.7,1.2,0.6"]
    text = "".join(f"{row}{more}\n" for row in rows)
    (tmp_path / "history.csv").write_text(f"{HISTORY.strip()}{columns}\n{text}")
    output = tmp_path / "curves.png"
    draw_history(tmp_path / "history.csv", output)
    picture = pixels(output)
    assert picture.shape == (round(DPI * 3.4), DPI * 9, 3)
    cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"][:3]
    for half in np.split(picture, 2, axis=1):
        for curve, colour in enumerate(cycle):  # training, validation, averaged
            levels = 255 * np.array(matplotlib.colors.to_rgb(colour))
            is_drawn = (np.abs(half - levels).max(axis=-1) <= 2).sum() > 300
            assert is_drawn == (averaged or curve < 2)


def test_the_kept_epoch_is_marked_in_both_plots(tmp_path):
    history, output = tmp_path / "history.csv", tmp_path / "curves.png"
    history.write_text(HISTORY + "1,2.3,0.1,2.2,0.2\n2,1.5,0.4,1.6,0.5\n3,0.9,0.7,1.2,0.6\n")
    for kept in (None, 2):
        draw_history(history, output, kept)
        grey = (pixels(output) == 128).all(axis=-1)
        for half in np.split(grey, 2, axis=1):
            assert (half.sum(axis=0).max() > 50) == (kept == 2)  # of 510 rows


def test_of_a_detectors_history_ap_is_drawn(tmp_path):
    def drawn(last):
        (tmp_path / "history.csv").write_text(
            f"epoch,loss,val_AP,val_AP_small\n0,9,,\n1,8,{last},\n"
        )
        draw_history(tmp_path / "history.csv", tmp_path / "curves.png")
        return pixels(tmp_path / "curves.png")

    picture = drawn("0.2")
    levels = 255 * np.array(matplotlib.colors.to_rgb("C1"))
    left, right = (
        (np.abs(half - levels).max(axis=-1) <= 2).sum() for half in np.split(picture, 2, 1)
    )
    assert left == 0 < right
    assert (picture != drawn("0.3")).any()


def test_each_column_of_a_history_changes_the_picture(tmp_path):
    def drawn(row):
        (tmp_path / "history.csv").write_text(HISTORY + "0,2,0.1,2.2,0.2\n" + row)
        draw_history(tmp_path / "history.csv", tmp_path / "curves.png")
        return pixels(tmp_path / "curves.png")

    first = drawn("1,1,0.5,1.6,0.6\n")
    changed = ["3,1,0.5,1.6,0.6", "1,1.5,0.5,1.6,0.6", "1,1,0.4,1.6,0.6", "1,1,0.5,1.9,0.6"]
    for row in [*changed, "1,1,0.5,1.6,0.3"]:
        assert (first != drawn(row)).any(), row


def test_a_reliability_diagram_shows_each_part_of_a_calibration(tmp_path):
    def drawn(confidence, accuracy, images):
        calibration = Calibration(
            np.array(images), np.array(confidence), np.array(accuracy), error=0.1
        )
        draw_calibration(calibration, tmp_path / "out.png")
        return pixels(tmp_path / "out.png")

    nothing = float("nan")
    first = drawn([nothing, 0.7], [nothing, 0.5], [0, 4])
    assert first.shape == (round(DPI * 3.4), DPI * 9, 3)
    half = first.shape[1] // 2
    for other, changed in (
        (drawn([nothing, 0.8], [nothing, 0.5], [0, 4]), "left"),
        (drawn([nothing, 0.7], [nothing, 0.9], [0, 4]), "left"),
        (drawn([nothing, 0.7], [nothing, 0.5], [3, 4]), "right"),
    ):
        is_other = (first != other).any(axis=(0, 2))
        assert is_other[:half].any() == (changed == "left")
        assert is_other[half:].any() == (changed == "right")


def test_a_token_pooling_is_drawn_channel_by_channel(tmp_path):
    def drawn(channels=(1, 0), **changes):
        rng = np.random.default_rng(0)
        step = PoolingStep(
            tokens_before=np.zeros((2, 1, 3)),
            map_before=rng.normal(size=(2, 7, 7, 3)),
            tokens_after=np.zeros((2, 1, 6)),
            map_after=rng.normal(size=(2, 4, 4, 6)),
            kernel=rng.normal(size=(3, 3, 3, 2)),
        )
        for name, place in changes.items():
            getattr(step, name)[place] += 1
        draw_token_pooling(step, channels, tmp_path / "out.png")
        return pixels(tmp_path / "out.png")

    first = drawn()
    assert first.shape == (round(DPI * 3.4), DPI * 8, 3)
    columns = DPI * 8 / 5
    for changes, place in (
        ({"map_before": (0, 2, 2, 1)}, (0, 0)),
        ({"kernel": (0, 1, 1, 0)}, (0, 1)),
        ({"map_after": (0, 1, 1, 2)}, (0, 2)),
        ({"kernel": (0, 1, 0, 1)}, (1, 3)),
        ({"map_after": (0, 1, 1, 1)}, (1, 4)),
    ):
        changed = np.nonzero((drawn(**changes) != first).any(axis=-1))
        row, column = (axis.mean() for axis in changed)
        assert (row // (DPI * 1.7), column // columns) == place
    for unseen in ({"map_before": (0, 2, 2, 2)}, {"map_after": (1, 1, 1, 1)}):
        np.testing.assert_array_equal(drawn(**unseen), first)


def test_one_epoch_is_enough_and_none_is_an_error(tmp_path):
    history = tmp_path / "history.csv"
    history.write_text(HISTORY + "0,2.3,0.1,2.2,0.2\n")
    draw_history(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    for content in (HISTORY, ""):
        history.write_text(content)
        with pytest.raises(ValueError, match=r"history\.csv holds no finished epoch"):
            draw_history(history, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_no_display_is_needed_and_the_backend_is_left_alone(tmp_path):
    """A notebook that draws through pyplot goes on as before."""
    (tmp_path / "history.csv").write_text(HISTORY + "0,2.3,0.1,2.2,0.2\n")
    script = (
        "import sys, matplotlib; from pit_keras.plots.pictures import draw_history;"
        "draw_history(*sys.argv[1:]); print(matplotlib.get_backend())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    process = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "history.csv", tmp_path / "curves.png"],
        env={**environment, "MPLBACKEND": "svg"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.split() == ["svg"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
