"""The web page of an evaluation: its numbers, its pictures, and that nothing can break it."""

import base64
import io
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from web_page import Page

from pit_keras.config.fields import DataConfig
from pit_keras.data.labelled_images import ArraySource, open_source
from pit_keras.evaluation.classification import evaluate_source
from pit_keras.evaluation.html_report import (
    check_report_folder,
    report_page,
    worst_mistakes,
    write_report,
)
from pit_keras.evaluation.predictions import evaluate_each
from pit_keras.runs.trained_model import TrainedModel

SIDE = 8
EPS = float(np.finfo("float32").eps)


def brightness_model(classes):
    """Takes a grey image of level 255 (k + 1/2) / classes for class k.

    The logits are -(x - c_k)^2 up to what all share: linear in the mean level x.
    """
    centres = (np.arange(classes) + 0.5) / classes
    kernel = np.tile(60 * centres / (3 * SIDE**2), (3 * SIDE**2, 1))
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), keras.layers.Flatten(), keras.layers.Dense(classes)],
        name="brightness",
    )
    model.layers[-1].set_weights([kernel, -30 * centres**2])
    return model


def trained_on(names):
    data = DataConfig(image_size=(SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3, eval_crop=1.0)
    return TrainedModel(brightness_model(len(names)), tuple(names), data)


def write_images(folder, levels):
    """{class: grey levels} as `folder/val/CLASS/N.png`, and one training image each."""
    for name, values in levels.items():
        for part, grey in (("train", [0]), ("val", values)):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for number, level in enumerate(grey):
                picture = Image.new("RGB", (SIDE, SIDE), (level,) * 3)
                picture.save(folder / part / name / f"{number}.png")
    return open_source(f"folder:{folder}")


def pixels_source(names, levels):
    """The same in memory, where a class may have no image."""
    greys = [level for values in levels.values() for level in values]
    labels = [names.index(name) for name, values in levels.items() for _ in values]
    pixels = np.tile(np.array(greys, np.uint8)[:, None, None, None], (1, SIDE, SIDE, 3))
    return ArraySource(
        name="pixels",
        class_names=names,
        images={"train": tf.constant(pixels), "val": tf.constant(pixels)},
        labels={part: tf.constant(labels, tf.int64) for part in ("train", "val")},
    )


def evaluated(trained, source, split="val"):
    """Results and predictions in batches that do not divide the images."""
    return evaluate_each(trained, source, split, batch_size=3, progress=False)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three classes, dark, grey and light, with four mistakes of rising distance."""
    levels = {
        "dark": [20, 40, 100, 130],
        "grey": [128, 120, 240],
        "light": [220, 230, 10],
    }
    folder = tmp_path_factory.mktemp("data")
    trained, source = trained_on(sorted(levels)), write_images(folder, levels)
    return trained, source, *evaluated(trained, source)


def picture_of(uri):
    kind, _, data = uri.partition(";base64,")
    assert kind in ("data:image/jpeg", "data:image/png")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def test_the_predictions_are_those_that_the_results_count(three):
    trained, source, results, predictions = three
    assert results == evaluate_source(trained, source, batch_size=3, progress=False)
    confusion = predictions.confusion()
    assert confusion.tolist() == [[2, 2, 0], [0, 2, 1], [1, 0, 2]]
    assert confusion.sum() == results["images"] == 10
    assert np.trace(confusion) / 10 == results["top1"] == 0.6
    assert predictions.loss.mean() == pytest.approx(results["loss"], rel=11 * EPS)  # of ten images


def test_of_several_splits_every_image_is_one_entry(three):
    trained, source, _, _ = three
    results, predictions = evaluated(trained, source, "all")
    assert results["images"] == len(predictions) == 13
    assert np.mean(~predictions.is_wrong) == pytest.approx(results["top1"])
    assert predictions.split.tolist() == ["train"] * 3 + ["val"] * 10
    assert predictions.position.tolist() == [*range(3), *range(10)]
    worst = worst_mistakes(trained, source, 1.0, predictions)
    assert [mistake["name"] for mistake in worst[:3]] == [
        "train/light/0.png",  # black
        "val/light/2.png",
        "train/grey/0.png",
    ]


def test_the_worst_mistakes_are_shown_with_their_own_pictures(three):
    trained, source, results, predictions = three
    mistakes = worst_mistakes(trained, source, results["eval_crop"], predictions)
    assert [(m["name"], m["label"], m["predicted"]) for m in mistakes] == [
        ("val/light/2.png", "light", "dark"),
        ("val/grey/2.png", "grey", "light"),
        ("val/dark/3.png", "dark", "grey"),
        ("val/dark/2.png", "dark", "grey"),
    ]
    for mistake, level in zip(mistakes, (10, 240, 130, 100), strict=True):
        picture = picture_of(mistake["picture"])
        assert picture.shape == (SIDE, SIDE, 3)
        assert np.abs(picture - level).max() <= 2
        logits = trained.logits([np.full((SIDE, SIDE, 3), level, "uint8")])[0].astype(float)
        shares = np.exp(logits) / np.exp(logits).sum()
        error = 3 * SIDE**2 * EPS * 60  # a logit sums so many terms, to up to 60
        assert mistake["probability"] == pytest.approx(shares.max(), rel=error)
        label = trained.class_names.index(mistake["label"])
        assert mistake["own_probability"] == pytest.approx(shares[label], rel=error)
        assert mistake["loss"] == pytest.approx(-np.log(shares[label]), rel=0, abs=error)
    assert len(worst_mistakes(trained, source, 1.0, predictions, count=2)) == 2


def test_the_gallery_shows_what_the_model_saw(tmp_path):
    """A long image, of which only the middle is looked at."""
    trained = trained_on(["dark", "light"])
    for part, name in [(part, name) for part in ("train", "val") for name in ("dark", "light")]:
        (tmp_path / part / name).mkdir(parents=True)
        pixels = np.zeros((SIDE, 5 * SIDE, 3), np.uint8)
        pixels[:, 2 * SIDE : 3 * SIDE] = 255
        Image.fromarray(pixels).save(tmp_path / part / name / "0.png")
    source = open_source(f"folder:{tmp_path}")
    results, predictions = evaluated(trained, source)
    (mistake,) = worst_mistakes(trained, source, results["eval_crop"], predictions)
    assert mistake["name"] == "val/dark/0.png"
    picture = picture_of(mistake["picture"])
    assert picture.shape == (SIDE, SIDE, 3)
    assert picture.min() >= 250


def test_the_page_holds_the_numbers(three):
    text = report_page(*three)
    page = Page(text)
    assert page.texts_of("title") == ["brightness on " + three[1].name]
    assert page.texts_of("h2") == [
        "Worst mistakes", "Confusion matrix", "Most confused", "Classes", "Calibration",
    ]  # fmt: skip
    assert "60.00%" in page.texts_of("dd")
    assert "10" in page.texts_of("dd")
    assert "4" in page.texts_of("dd")
    assert "Top-5" not in page.texts_of("dt")  # of three classes
    cells = page.texts_of("td")
    assert cells[:7] == ["2", "2", "2", "1", "1", "2", "dark"]  # zeros are left empty
    assert cells[6:15] == ["dark", "grey", "2", "grey", "light", "1", "light", "dark", "1"]
    assert cells[15:] == [
        "50.0%", "66.7%", "57.1%", "4",
        "66.7%", "50.0%", "57.1%", "3",
        "66.7%", "66.7%", "66.7%", "3",
    ]  # fmt: skip
    assert page.texts_of("th")[-3:] == ["dark", "grey", "light"]
    assert len(page.all("figure")) == 4


def test_the_page_needs_nothing_else(three):
    page = Page(report_page(*three))
    assert not page.all("script")
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    for attributes in page.all("img"):
        assert picture_of(attributes["src"]).size
        assert attributes["alt"]


NAMES = ["<script>alert(1)", "a & b", 'quote" onload="x', "{{ 7 * 7 }}", "naïve 猫"]


def test_names_of_classes_and_files_are_text(tmp_path):
    names = sorted(NAMES)
    levels = {name: [255 if number == 0 else 0] for number, name in enumerate(names)}
    source = write_images(tmp_path, levels)
    trained = trained_on(names)
    file = tmp_path / "val" / names[2] / "0.png"
    file.rename(file.with_name("<b>&.png"))
    bad = (tmp_path / "val" / names[3] / "0.png").rename(
        tmp_path / "val" / names[3] / b"\xff.png".decode(errors="surrogateescape")
    )
    assert bad.exists()
    source = open_source(f"folder:{tmp_path}")
    text = report_page(trained, source, *evaluated(trained, source))
    page = Page(text)
    assert not page.all("script")
    assert not page.all("b")
    assert not any("onload" in attributes for _, attributes in page.elements)
    for name in names:
        assert name in page.texts_of("th")
    assert f"val/{names[2]}/<b>&.png" in page.texts_of("figcaption")
    assert f"val/{names[3]}/\\udcff.png" in page.texts_of("figcaption")
    assert "49" not in page.texts_of("th")
    text.encode()


def test_a_perfect_model_has_no_mistakes_to_show(tmp_path):
    levels = {"dark": [10, 20], "light": [240]}
    source = write_images(tmp_path, levels)
    trained = trained_on(sorted(levels))
    page = Page(report_page(trained, source, *evaluated(trained, source)))
    assert "100.00%" in page.texts_of("dd")
    assert not page.all("figure")
    assert "None: every prediction is right." in page.texts_of("p")
    assert "Most confused" not in page.texts_of("h2")


def test_a_class_without_images_or_predictions_has_no_share():
    trained = trained_on(["dark", "grey", "light"])
    source = pixels_source(trained.class_names, {"dark": [10, 20], "grey": [250]})
    page = Page(report_page(trained, source, *evaluated(trained, source)))
    nothing = "\N{EN DASH}"
    assert page.texts_of("td")[-12:] == [
        "0.0%", nothing, "0.0%", "1",  # grey
        "100.0%", "100.0%", "100.0%", "2",  # dark
        nothing, "0.0%", "0.0%", "0",  # light
    ]  # fmt: skip
    assert "val example 2 of pixels" in page.texts_of("figcaption")


def test_a_single_class():
    trained = trained_on(["only"])
    source = pixels_source(trained.class_names, {"only": [3, 250]})
    page = Page(report_page(trained, source, *evaluated(trained, source)))
    assert "100.00%" in page.texts_of("dd")
    assert page.texts_of("td")[-5:] == ["2", "100.0%", "100.0%", "100.0%", "2"]


def test_of_many_classes_only_pairs_are_shown(tmp_path):
    names = [f"{number:02d}" for number in range(41)]
    source = write_images(tmp_path, {name: [200] for name in names})
    trained = trained_on(names)
    page = Page(report_page(trained, source, *evaluated(trained, source)))
    assert {"class": "pairs"} in page.all("table")
    assert {"class": "matrix"} not in page.all("table")
    assert len(page.all("figure")) == 24
    assert "Top-5" in page.texts_of("dt")


def test_it_is_written_into_a_new_or_an_old_folder(three, tmp_path):
    folder = tmp_path / "report"
    check_report_folder(folder)
    assert not folder.exists()
    page = write_report(folder, *three)
    assert page == folder / "index.html"
    text = page.read_text(encoding="utf-8")
    assert text.rstrip().endswith("</html>")
    (folder / "notes.txt").write_text("mine")
    page.write_text("old")
    check_report_folder(folder)
    assert page.read_text() == "old"
    write_report(folder, *three)
    assert page.read_text(encoding="utf-8") == text
    assert {file.name for file in folder.iterdir()} == {"index.html", "notes.txt"}


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("file.txt", "file.txt is a file; give a folder."),
        ("none/report", "cannot be written: there is no folder"),
        ("/proc/report", "--report=/proc/report cannot be written: "),
        ("taken", "index.html is a folder; give the name of a file."),
    ],
)
def test_where_it_cannot_be_written_is_found_before(folder, message, tmp_path):
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "taken/index.html").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match=message.replace(".", r"\.")):
        check_report_folder(tmp_path / pathlib.Path(folder))
    assert sorted(tmp_path.rglob("*")) == before
