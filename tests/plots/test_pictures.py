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
    CLASS_COLORS,
    DETECTED_WIDTH,
    DPI,
    batch_title,
    check_picture,
    draw_batches,
    draw_calibration,
    draw_detections,
    draw_history,
    draw_predictions,
    draw_token_pooling,
    label_in_words,
)
from pit_keras.runs.found_objects import FoundObject

HISTORY = "epoch,loss,top1,val_loss,val_top1\n"


@pytest.fixture
def photos(tmp_path):
    """Eight images of one colour each, of different sizes and both formats."""
    paths = [tmp_path / f"photo{n}.{'png' if n % 2 else 'jpg'}" for n in range(8)]
    for number, path in enumerate(paths):
        Image.new("RGB", (10 + number, 20), (30 * number, 255 - 30 * number, 120)).save(path)
    return paths


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def colours(path):
    """Colours of the picture that cover more than 1% of it, without white."""
    packed, counts = np.unique(pixels(path) @ [256**2, 256, 1], return_counts=True)
    found = [(c >> 16, c >> 8 & 255, c & 255) for c in packed[counts > 0.01 * counts.sum()]]
    return [colour for colour in found if min(colour) < 250]


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (6, 1, 6), (7, 2, 6)])
def test_every_image_is_in_the_grid(photos, tmp_path, count, rows, columns):
    output = tmp_path / "out.png"
    draw_predictions(photos[:count], [[("cat", 0.7), ("dog", 0.3)]] * count, output)
    with Image.open(output) as picture:
        assert picture.format == "PNG"
        assert picture.size == (DPI * 2 * columns, round(DPI * 2.3 * rows))
    shown = colours(output)
    assert len(shown) == count
    for number, colour in enumerate(sorted(shown)):  # JPEG may miss a level
        assert np.abs(np.subtract(colour, (30 * number, 255 - 30 * number, 120))).max() <= 2


def test_images_come_in_order_row_by_row(photos, tmp_path):
    output = tmp_path / "out.png"
    draw_predictions(photos, [[("cat", 0.7)]] * 8, output)
    places = {}
    for number in range(8):
        far = np.abs(pixels(output) - (30 * number, 255 - 30 * number, 120)).max(axis=-1)
        rows, columns = np.nonzero(far <= 2)
        places[number] = (rows.mean() // (DPI * 2.3), columns.mean() // (DPI * 2))
    assert places == {number: (number // 6, number % 6) for number in range(8)}


def test_the_title_is_the_likeliest_class(photos, tmp_path):
    def drawn(best):
        draw_predictions(photos[:1], [best], tmp_path / "out.png")
        return pixels(tmp_path / "out.png")

    first = drawn([("cat", 0.7), ("dog", 0.3)])
    np.testing.assert_array_equal(first, drawn([("cat", 0.7), ("owl", 0.1)]))
    assert (first != drawn([("dog", 0.7), ("cat", 0.3)])).any()
    assert (first != drawn([("cat", 0.6), ("dog", 0.4)])).any()


@pytest.mark.parametrize("ending", ["png", "pdf", "svg", "jpg", "PNG"])
def test_the_ending_decides_the_format(photos, tmp_path, ending):
    output = tmp_path / f"out.{ending}"
    check_picture(output, 1)
    draw_predictions(photos[:2], [[("cat", 0.7)]] * 2, output)
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml", "jpg": b"\xff\xd8"}
    assert output.read_bytes().startswith(start[ending.lower()])


def test_no_more_images_than_a_picture_holds():
    check_picture("out.png", 600)
    with pytest.raises(ValueError, match="One picture holds at most 600 images; got 601"):
        check_picture("out.png", 601)


def test_large_images_and_names_that_are_no_formulas(tmp_path):
    """Dollar signs begin a formula for matplotlib, and this one does not end."""
    Image.new("RGB", (5000, 100), (200, 30, 90)).save(tmp_path / "large.png")

    draw_predictions([tmp_path / "large.png"], [[("$5 & $x^{", 0.5)]], tmp_path / "out.png")

    assert colours(tmp_path / "out.png") == [(200, 30, 90)]


def test_an_unknown_ending_is_an_error_and_nothing_is_written(photos, tmp_path):
    (tmp_path / "history.csv").write_text(HISTORY + "0,2,0.1,2,0.2\n")
    for name in ("out.xyz", "out.docx"):
        with pytest.raises(ValueError, match=r"Cannot draw .*out.*its ending must be one of .*png"):
            check_picture(tmp_path / name, 1)
        with pytest.raises(ValueError, match="not supported"):
            draw_predictions(photos[:1], [[("cat", 0.7)]], tmp_path / name)
        with pytest.raises(ValueError, match="not supported"):
            draw_history(tmp_path / "history.csv", tmp_path / name)
        assert not (tmp_path / name).exists()
    check_picture("out.png", 1)


MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.4)


def colour_of(number):
    return 5 * number, 255 - 5 * number, 120


def flat_batch(numbers, classes=4):
    """Normalised images of one colour each, and one-hot labels."""
    levels = np.array([colour_of(number) for number in numbers]) / 255
    normalised = ((levels - MEAN) / STD).astype(np.float32)[:, None, None]  # (n, 1, 1, 3)
    return np.tile(normalised, (1, 6, 8, 1)), np.eye(classes, dtype=np.float32)[numbers % classes]


def draw(output, *batches, names="abcd", batch_size=None):
    batch_size = batch_size or len(batches[0][0])
    draw_batches(batches, names, output, batch_size=batch_size, mean=MEAN, std=STD)
    return pixels(output)


@pytest.mark.parametrize(
    ("images", "batches", "rows", "columns"),
    [(1, 1, 1, 1), (2, 3, 1, 2), (9, 1, 2, 5), (20, 1, 2, 8)],
)
def test_batches_are_blocks_of_what_the_model_sees(tmp_path, images, batches, rows, columns):
    numbers = np.arange(images * batches).reshape(batches, images)
    picture = draw(tmp_path / "out.png", *map(flat_batch, numbers))

    height, width = round(DPI * (2.4 * rows + 0.4)), DPI * 2 * max(columns, 2)
    assert picture.shape == (height * batches, width, 3)
    places = []
    for number in numbers[:, :16].flat:
        shown = np.nonzero(np.abs(picture - colour_of(number)).max(axis=-1) <= 1)
        row, column = (axis.mean() for axis in shown)
        places.append((row // height, row % height // (height / rows), column // (width / columns)))
    assert places == [
        (batch, image // columns, image % columns)
        for batch in range(batches)
        for image in range(min(images, 16))
    ]
    for number in numbers[:, 16:].flat:
        assert (np.abs(picture - colour_of(number)).max(axis=-1) > 1).all()


def test_values_beyond_white_and_black_are_cut_off_in_silence(tmp_path, caplog):
    images = np.stack([np.full((6, 8, 3), value, np.float32) for value in (9, -9)])
    picture = draw(tmp_path / "out.png", (images, np.eye(4, dtype=np.float32)[:2]))
    assert (picture == 0).all(axis=-1).mean() > 0.2
    assert (np.ptp(picture, axis=-1) == 0).all()
    assert not caplog.records


def test_a_title_says_which_batch_and_how_many_images_are_left_out(tmp_path):
    assert batch_title(3, 12, 12) == "Batch 3"
    assert batch_title(1, 16, 512) == "Batch 1: the first 16 of its 512 images"
    batch = flat_batch(np.arange(2))
    whole, more = draw(tmp_path / "a.png", batch), draw(tmp_path / "b.png", batch, batch_size=17)
    assert (whole != more).any()


def test_a_label_is_drawn_and_is_no_formula(tmp_path):
    images, labels = flat_batch(np.arange(2))
    first = draw(tmp_path / "out.png", (images, labels))
    mixed = 0.7 * labels + 0.3 * labels[::-1]
    assert (first != draw(tmp_path / "out.png", (images, mixed))).any()
    assert (first != draw(tmp_path / "out.png", (images, labels), names="xbcd")).any()
    draw(tmp_path / "out.png", (images, mixed), names=["$x^{$", "b", "c", "d"])


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ([0, 1, 0, 0], "dog"),
        ([0.38, 0.62, 0, 0], "dog: 0.62 | cat: 0.38"),
        ([0.5, 0.5, 0, 0], "cat: 0.50 | dog: 0.50"),
        ([0.004, 0.996, 0, 0], "dog"),
        ([0.3, 0.7, 0, 0.0], "dog: 0.70 | cat: 0.30"),
        ([0.25, 0, 0.75, 0], "a rather long name…: 0.75\ncat: 0.25"),
        ([0, 0, 1, 0], "a rather long name with a…"),
        ([0.1, 0.2, 0.3, 0.4], "owl: 0.40\na rather long name…: 0.30\ndog: 0.20"),
    ],
)
def test_labels_in_words(label, words):
    names = ("cat", "dog", "a rather long name\nwith a line break", "owl")
    assert label_in_words(np.array(label, np.float32), names) == words


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


def test_detected_objects_have_boxes_where_they_are_in_the_colour_of_their_class(tmp_path):
    photo, output = tmp_path / "photo.png", tmp_path / "boxes.png"
    Image.new("RGB", (2000, 1000), (128, 128, 128)).save(photo)  # more pixels than are drawn
    boxes = {0: (200, 500, 800, 900), 1: (1000, 100, 1900, 800)}
    objects = [FoundObject("$x^{", 0.9, box, label) for label, box in boxes.items()]
    draw_detections([photo], [objects], output)
    drawn = pixels(output)
    height, width, _ = drawn.shape
    assert width == DPI * DETECTED_WIDTH
    assert height == width // 2
    for label, (left, top, right, bottom) in boxes.items():
        color = np.rint(np.array(CLASS_COLORS[label]) * 255)
        rows, columns = np.nonzero((np.abs(drawn - color) <= 2).all(axis=-1))
        # The lowest row and the outer columns are the box's; the label is at the top.
        assert rows.max() == pytest.approx(bottom / 1000 * height, abs=12)
        assert columns.min() == pytest.approx(left / 2000 * width, abs=12)
        assert columns.max() == pytest.approx(right / 2000 * width, abs=12)
        middle = columns == round((left + right) / 4000 * width)
        assert rows[middle].min() == pytest.approx(top / 1000 * height, abs=30)


def test_classes_have_colours_of_their_own():
    assert len(set(CLASS_COLORS)) == 20
    assert not {(128, 128, 128)} & set(CLASS_COLORS)


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (5, 2, 3)])
def test_images_with_boxes_are_in_a_grid(photos, tmp_path, count, rows, columns):
    output = tmp_path / "boxes.png"
    found = [[FoundObject("cat", 0.8, (1, 2, 8, 15), 0)]] * count
    draw_detections(photos[:count], found, output)
    with Image.open(output) as picture:
        assert picture.width == DPI * DETECTED_WIDTH * columns
    grey_or_photo = [colour for colour in colours(output) if colour != (31, 119, 180)]
    assert len(grey_or_photo) == count
    draw_detections(photos[:1], [[]], output)  # nothing was found
    assert len(colours(output)) == 1
