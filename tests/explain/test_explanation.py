"""Overlays: where a token's share is drawn, and what a picture of explanations holds."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.explain.explanation import (
    COLORS,
    KEY_INCHES,
    draw_explanations,
    draw_overlay,
    without_lattice,
)
from pit_keras.plots.pictures import DPI
from pit_keras.runs.trained_model import TrainedModel

SIZE = (24, 36)


@pytest.fixture(scope="module")
def trained():
    model = pit_keras.create_model(
        "pit_ti", input_shape=(*SIZE, 3), patch_size=4, stride=4, head_dim=8, depths=(1, 1, 1),
        classes=3,
    )  # fmt: skip
    return TrainedModel(model, ("a", "b", "c"), DataConfig(image_size=SIZE, eval_crop=1.0))


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in ("grey", "noise")]
    Image.new("RGB", (50, 40), (90, 90, 90)).save(paths[0])
    Image.effect_noise((80, 60), 90).convert("RGB").save(paths[1])
    return paths


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("grid", "first", "spacing", "token"),
    [
        ((27, 27), 7.5, 8, (20, 3)),
        ((14, 14), 7.5, 16, (0, 13)),
        ((7, 7), 7.5, 32, (6, 6)),
        ((3, 5), 1.5, 60, (1, 2)),
    ],
)
def test_a_token_is_drawn_over_the_centre_of_its_patches(grid, first, spacing, token, tmp_path):
    """On a black image whose pixels are the picture's."""
    figure = Figure(figsize=(2.24, 2.24))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.axis("off")
    axis.imshow(np.zeros((224, 224, 3)))
    limits = axis.get_xlim(), axis.get_ylim()
    shares = np.zeros(grid)
    shares[token] = 1

    draw_overlay(axis, shares, first, spacing)

    assert (axis.get_xlim(), axis.get_ylim()) == limits
    figure.savefig(tmp_path / "x.png", dpi=100)
    light = pixels(tmp_path / "x.png").sum(axis=-1)
    assert light.shape == (224, 224)
    assert light.min() < 0.1 * light.max()
    for place, centres in zip(token, np.nonzero(light > 0.98 * light.max()), strict=True):
        low, high = centres.min(), centres.max()
        expected = first + spacing * place
        # At a border the outermost token goes on, so its brightest part does.
        assert low <= expected + 1
        assert high >= expected - 1
        if 0 < place < grid[0] - 1:
            assert (low + high) / 2 == pytest.approx(expected, abs=1)


def test_an_overlay_covers_the_whole_image(tmp_path):
    figure = Figure(figsize=(2.24, 2.24))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.axis("off")
    axis.imshow(np.ones((224, 224, 3)))
    draw_overlay(axis, np.zeros((7, 7)), 7.5, 32)
    figure.savefig(tmp_path / "x.png", dpi=100)
    assert pixels(tmp_path / "x.png").max() < 255


def test_what_alternates_is_gone_and_the_rest_stays():
    lattice = np.outer([1, 2, 1, 2, 1, 2, 1], [1, 2, 1, 2, 1])
    smooth = without_lattice(lattice)
    assert smooth.shape == (7, 5)
    np.testing.assert_allclose(smooth[1:-1, 1:-1], 9 / 4)
    slope = np.add.outer(np.arange(7.0), 3 * np.arange(5.0))
    np.testing.assert_allclose(without_lattice(slope)[1:-1, 1:-1], slope[1:-1, 1:-1])
    spot = np.zeros((5, 5))
    spot[2, 1] = 16
    np.testing.assert_array_equal(
        without_lattice(spot)[1:4, 0:3], [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    )


def test_each_image_is_a_row_of_its_stages(trained, photos, tmp_path):
    output = tmp_path / "out.png"
    draw_explanations(trained, iter(photos), [[("a", 0.7)], [("b", 0.4)]], output)

    picture = pixels(output)
    row, width = 2 * 24 / 36 + 0.45, DPI * 2 * 4  # inches, pixels
    assert picture.shape == (int(DPI * (2 * row + KEY_INCHES)), width, 3)
    top, key = picture[: round(DPI * row)], picture[round(DPI * 2 * row) :]
    columns = [top[:, at : at + width // 4] for at in range(0, width, width // 4)]
    grey = [(np.abs(column - 90).max(axis=-1) == 0).mean() > 0.5 for column in columns]
    assert grey == [True, False, False, False]
    coloured = [(np.ptp(column, axis=-1) > 30).any() for column in columns]
    assert coloured == [False, True, True, True]
    # The key goes from the colour of the least share to that of the largest.
    ends = 255 * matplotlib.colormaps[COLORS]([0.02, 0.98])[:, :3]
    assert all((np.abs(key - end).max(axis=-1) <= 8).any() for end in ends)


def test_the_picture_follows_the_model_and_the_prediction(trained, photos, tmp_path):
    def drawn(prediction, model=trained.model):
        other = TrainedModel(model, trained.class_names, trained.data)
        draw_explanations(other, photos[1:], [[prediction]], tmp_path / "out.png")
        return pixels(tmp_path / "out.png")

    first = drawn(("a", 0.7))
    np.testing.assert_array_equal(first, drawn(("a", 0.7)))
    assert (first != drawn(("b", 0.7))).any()
    assert (first != drawn(("a", 0.6))).any()
    photos[1] = photos[1].rename(photos[1].with_name("another.png"))
    assert (first != drawn(("a", 0.7))).any()  # each is below its file's name
    other = pit_keras.create_model(
        "vit_ti", input_shape=(*SIZE, 3), patch_size=4, stride=4, head_dim=8, depth=1, classes=3
    )
    assert drawn(("a", 0.7), other).shape[1] == DPI * 4


def test_a_model_without_attention_is_refused(trained, tmp_path):
    model = pit_keras.create_model("resnet50", base_width=4, input_shape=(32, 32, 3))
    with pytest.raises(ValueError, match="resnet50 has no transformer blocks and so no attention"):
        draw_explanations(TrainedModel(model, (), trained.data), [], [], tmp_path / "x.png")
