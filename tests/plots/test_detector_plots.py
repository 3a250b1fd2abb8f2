"""Pictures of how a detector works: matched boxes, costs, positions."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from pit_keras.plots.detector_plots import draw_matching, draw_positions

BLUE, ORANGE, GREY = (31, 119, 180), (255, 127, 14), (128, 128, 128)  # C0, C1, "grey"
BOXES = np.array([[0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 0.3, 0.5], [0.8, 0.7, 0.2, 0.4]])
TARGETS = np.array([[0.75, 0.65, 0.3, 0.4], [0.55, 0.4, 0.3, 0.5]])
COSTS = np.array([[6.25, 2.5, -1.75], [3.0, -0.5, 4.125]])


@pytest.fixture
def written(monkeypatch):
    """All text that is written into the picture, and where."""
    texts, write = [], Axes.text

    def text(axis, x, y, s, **style):
        texts.append((x, y, s))
        return write(axis, x, y, s, **style)

    monkeypatch.setattr(Axes, "text", text)
    return texts


def halves(path):
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    middle = pixels.shape[1] * 2 // 5
    return pixels[:, :middle], pixels[:, middle:]


def share(pixels, colour):
    return (np.abs(pixels - colour).max(axis=-1) < 3).mean()


def test_matched_pairs_have_one_colour_and_the_others_are_grey(tmp_path):
    draw_matching(BOXES, TARGETS, ("cat", "dog"), COSTS, np.array([2, 1]), tmp_path / "a.png")
    scene, table = halves(tmp_path / "a.png")
    for colour in (BLUE, ORANGE, GREY):
        assert share(scene, colour) > 0.001
    blue, orange = (np.argwhere(np.abs(table - c).max(axis=-1) < 3).mean(axis=0) for c in
                    (BLUE, ORANGE))  # fmt: skip
    assert blue[0] < table.shape[0] / 2 < orange[0]  # the cat is in the first row
    assert orange[1] < blue[1]  # its query, the last one, right of the dog's


def test_an_object_without_a_query_is_framed_nowhere(tmp_path):
    draw_matching(BOXES, TARGETS, ("cat", "dog"), COSTS, np.array([2, -1]), tmp_path / "a.png")
    scene, table = halves(tmp_path / "a.png")
    assert share(scene, ORANGE) > 0.001  # the object itself
    assert share(table, ORANGE) == 0


def test_every_cost_stands_in_its_place(tmp_path, written):
    draw_matching(BOXES, TARGETS, ("$cat", "dog"), COSTS, np.array([2, 1]), tmp_path / "a.png")
    for (target, query), cost in np.ndenumerate(COSTS):
        assert (query, target, f"{cost:.2f}") in written


def test_positions_are_drawn_as_they_are(tmp_path):
    """One channel goes from dark to bright downwards, the other to the right."""
    down = np.repeat(np.linspace(-1, 1, 10)[:, None], 12, axis=1)
    right = np.repeat(np.linspace(-1, 1, 12)[None], 10, axis=0)
    positions = np.stack([down, np.zeros((10, 12)), right], axis=-1)
    draw_positions(positions, (0, 2), tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L")).astype(int)
    first, second = np.array_split(pixels, 2, axis=1)
    height, width = first.shape
    upper, lower = height * 2 // 5, height * 4 // 5
    assert first[upper, width // 2] < first[lower, width // 2]
    assert abs(first[lower, width // 4] - first[lower, width * 3 // 4]) < 3
    assert second[lower, width // 4] < second[lower, width * 3 // 4]
