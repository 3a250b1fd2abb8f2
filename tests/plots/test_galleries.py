"""Galleries, by keras-cv and without it."""

import itertools
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pit_keras.plots import galleries
from pit_keras.plots.galleries import (
    draw_batches,
    draw_detections,
    draw_predictions,
    label_in_words,
)
from pit_keras.plots.pictures import DPI, check_picture
from pit_keras.runs.found_objects import FoundObject


@pytest.fixture(autouse=True)
def _import_is_tried_anew():
    galleries._visualization.cache_clear()
    yield
    galleries._visualization.cache_clear()


@pytest.fixture(params=["keras-cv", "plain"])
def both_ways(request, monkeypatch, capfd):
    """Draws by keras-cv, and without it, which is said once."""
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "keras_cv", None)  # its import fails
    yield
    said = capfd.readouterr().err
    assert said.count("`pip install keras-cv opencv-python-headless`") == (request.param == "plain")
    assert not plt.get_fignums()


@pytest.fixture
def saved(monkeypatch):
    """All figures that are saved."""
    figures, save = [], Figure.savefig

    def savefig(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def texts(figure):
    """The titles and labels of each image, all of which are within the figure."""
    figure.draw_without_rendering()  # it was saved at another resolution
    drawn = [
        [text for text in (axis._left_title, axis.title, *axis.texts) if text.get_text().strip()]
        for axis in figure.axes
    ]
    for text in itertools.chain(*drawn):
        extent = text.get_window_extent()
        assert figure.bbox.contains(*extent.min)
        assert figure.bbox.contains(*extent.max)
    return [[text.get_text().strip() for text in of_image] for of_image in drawn]


@pytest.fixture
def photos(tmp_path):
    """Eight images of one colour each, of different sizes and both formats."""
    paths = [tmp_path / f"photo{n}.{'png' if n % 2 else 'jpg'}" for n in range(8)]
    for number, path in enumerate(paths):
        Image.new("RGB", (10 + number, 20), (30 * number, 255 - 30 * number, 120)).save(path)
    return paths


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def share(picture, colour):
    return (np.abs(picture - colour).max(axis=-1) <= 2).mean()


def test_images_come_in_order_row_by_row_under_name_and_class(photos, tmp_path, both_ways, saved):
    output = tmp_path / "out.png"
    predictions = [[(f"class {n}", 0.7), ("dog", 0.3)] for n in range(8)]
    draw_predictions(photos, predictions, output)
    picture = pixels(output)
    assert picture.shape[1] == 6 * DPI * 2
    for number in range(8):
        far = np.abs(picture - (30 * number, 255 - 30 * number, 120)).max(axis=-1)
        rows, columns = np.nonzero(far <= 2)
        place = rows.mean() // (len(picture) / 2), columns.mean() // (DPI * 2)
        assert place == (number // 6, number % 6)
    assert texts(saved[0])[:8] == [[f"{photos[n].name}\nclass {n}  70%"] for n in range(8)]


def test_without_cv2_boxes_are_drawn_plainly(photos, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "cv2", None)
    for _ in range(2):
        draw_detections(
            photos[:1], [[FoundObject("cat", 0.8, (1, 2, 8, 15), 0)]], tmp_path / "a.png"
        )
    (line,) = capfd.readouterr().err.splitlines()
    assert "cv2" in line
    assert line.endswith("`pip install keras-cv opencv-python-headless`.")


@pytest.mark.parametrize("ending", ["png", "pdf", "svg", "jpg", "PNG"])
def test_the_ending_decides_the_format(photos, tmp_path, ending):
    output = tmp_path / f"out.{ending}"
    check_picture(output, 1)
    draw_predictions(photos[:2], [[("cat", 0.7)]] * 2, output)
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml", "jpg": b"\xff\xd8"}
    assert output.read_bytes().startswith(start[ending.lower()])


def test_large_images_and_names_that_are_no_formulas(tmp_path):
    """Dollar signs begin a formula for matplotlib, and this one does not end."""
    Image.new("RGB", (5000, 100), (200, 30, 90)).save(tmp_path / "large.png")

    draw_predictions([tmp_path / "large.png"], [[("$5 & $x^{", 0.5)]], tmp_path / "out.png")

    assert share(pixels(tmp_path / "out.png"), (200, 30, 90)) > 0.05


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
    [
        (1, 1, 1, 1),
        (2, 3, 1, 2),
        pytest.param(9, 1, 2, 5, marks=pytest.mark.slow),
        (20, 1, 2, 8),
    ],
)
def test_batches_are_blocks_of_what_the_model_sees(
    tmp_path, both_ways, images, batches, rows, columns
):
    numbers = np.arange(images * batches).reshape(batches, images)
    picture = draw(tmp_path / "out.png", *map(flat_batch, numbers))

    height = len(picture) / batches
    assert picture.shape[1] == DPI * 2 * max(columns, 2)
    places = []
    for number in numbers[:, :16].flat:
        shown = np.nonzero(np.abs(picture - colour_of(number)).max(axis=-1) <= 1)
        row, column = (axis.mean() for axis in shown)
        places.append((row // height, row % height // (height / rows), column // (DPI * 2)))
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


def test_a_title_says_which_batch_and_how_many_images_are_left_out(tmp_path, saved):
    draw(tmp_path / "a.png", flat_batch(np.arange(9)), flat_batch(np.arange(9)), batch_size=17)
    drawn = texts(saved[0])
    for number in (1, 2):
        first = drawn[10 * (number - 1)]
        assert first == [f"Batch {number}: the first 9 of its 17 images", "a"]


def test_a_label_is_drawn_and_is_no_formula(tmp_path, saved):
    images, labels = flat_batch(np.arange(2))
    mixed = 0.7 * labels + 0.3 * labels[::-1]
    draw(tmp_path / "out.png", (images, mixed), names=["$x^{$", "b", "c", "d"])
    assert texts(saved[0]) == [["Batch 1", "$x^{$: 0.70 | b: 0.30"], ["b: 0.70 | $x^{$: 0.30"]]


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


@pytest.mark.parametrize("score", [None, 0.9])
def test_boxes_are_where_objects_are_and_labels_are_within_the_picture(
    tmp_path, both_ways, saved, score
):
    photo, output = tmp_path / "photo.png", tmp_path / "boxes.png"
    Image.new("RGB", (2000, 1000), (128, 128, 128)).save(photo)  # more pixels than are drawn
    boxes = (200, 500, 800, 900), (1000, 100, 1900, 800)
    objects = [FoundObject("$x^{", score, box, label) for label, box in enumerate(boxes)]
    draw_detections([photo], [objects], output)
    (axis,) = saved[0].axes
    drawn, place = pixels(output), axis.get_position()
    (x0, y1), (x1, y0) = place.get_points() * drawn.shape[1::-1]
    color = galleries.TRUE_COLOR if score is None else galleries.FOUND_COLOR
    is_box = np.abs(drawn - color).max(axis=-1) <= 40  # thin lines are blended
    for left, top, right, bottom in boxes:
        rows, columns = np.nonzero(is_box)
        x = x0 + np.array([left, right]) / 2000 * (x1 - x0)
        y = len(drawn) - y0 + np.array([top, bottom]) / 1000 * (y0 - y1)
        near = (columns > x[0] - 9) & (columns < x[1] + 9) & (rows > y[0] + 40) & (rows < y[1] + 9)
        assert columns[near].min() == pytest.approx(x[0], abs=4)
        assert columns[near].max() == pytest.approx(x[1], abs=4)
        assert rows[near].max() == pytest.approx(y[1], abs=4)
    label = "$x^{" if score is None else "$x^{ 90%"
    assert texts(saved[0]) == [["photo.png", label, label]]


def test_a_label_at_the_border_is_within_the_picture(photos, tmp_path, saved):
    corner = FoundObject("a cat with a long name", 0.8, (9, 0, 10, 3), 0)
    draw_detections(photos[:1], [[corner]], tmp_path / "boxes.png")
    assert texts(saved[0]) == [["photo0.jpg", "a cat with a long name 80%"]]


def test_nothing_found_is_no_box(photos, tmp_path, both_ways):
    draw_detections(photos[:1], [[]], tmp_path / "boxes.png")
    picture = pixels(tmp_path / "boxes.png")
    assert share(picture, (0, 255, 120)) > 0.2
    assert share(picture, galleries.FOUND_COLOR) == 0


def test_objects_of_batches_have_boxes(tmp_path, both_ways, saved):
    images, _ = flat_batch(np.arange(3))
    objects = [[FoundObject("cat", None, (1, 1, 6, 5), 0)], [], []]
    picture = draw(tmp_path / "out.png", (images, objects))
    assert share(picture, galleries.TRUE_COLOR) > 0.001
    assert texts(saved[0]) == [["Batch 1", "cat"], [], []]
