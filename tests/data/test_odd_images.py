"""Unusual and broken files, through the paths that images really take."""

import itertools
import os

import forked
import keras
import numpy as np
import pytest
from PIL import Image, ImageOps

from pit_keras.data.labelled_images import open_source
from pit_keras.data.pipeline import evaluation_batches, train_batches
from pit_keras.data.preprocessing import load_image, preprocess_evaluation
from pit_keras.data.unreadable import UnreadableImageError, UnreadableImages
from pit_keras.runs.trained_model import TrainedModel, predict

SIDEWAYS = 6  # EXIF's orientation "rotate by 90 degrees to the right"


def write_readable(folder, photograph):
    """Writes unusual files that are read; the name says what they are."""
    picture = Image.fromarray(photograph[:61, :83])
    frames = [picture, picture.rotate(180)]
    palette = picture.convert("P", palette=Image.Palette.ADAPTIVE)
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    picture.convert("L").save(folder / "grey.jpg")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.save(folder / "progressive.jpg", progressive=True)
    picture.save(folder / "sideways.jpg", exif=exif)
    picture.save(folder / "a_png.jpg", format="PNG")
    palette.save(folder / "a_still_gif.jpg", format="GIF")
    picture.save(folder / "a_jpeg.png", format="JPEG")
    palette.save(folder / "palette.png")
    palette.save(folder / "transparent_palette.png", transparency=bytes(range(256)))
    picture.convert("LA").save(folder / "grey_and_alpha.png")
    picture.convert("1").save(folder / "black_and_white.png")
    frames[0].save(folder / "animated.png", save_all=True, append_images=frames[1:])
    picture.resize((1, 1)).save(folder / "one_pixel.png")
    picture.resize((500, 1)).save(folder / "one_row.png")
    picture.resize((1, 500)).save(folder / "one_column.jpg")


def write_unreadable(folder, photograph):
    picture = Image.fromarray(photograph[:61, :83])
    frames = [picture, picture.rotate(180)]
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("not an image")
    frames[0].save(
        folder / "an_animated_gif.jpg", format="GIF", save_all=True, append_images=frames[1:]
    )
    for ending, file_format in (("bmp", "BMP"), ("webp", "WEBP"), ("tiff", "TIFF")):
        picture.save(folder / f"a_{ending}.jpg", format=file_format)
    for name in ("short.jpg", "short.png"):
        picture.save(folder / name)
        os.truncate(folder / name, (folder / name).stat().st_size * 3 // 4)


@pytest.fixture(scope="module")
def readable(tmp_path_factory, photographs):
    """A folder whose classes "odd" and "same" hold the same unusual files."""
    root = tmp_path_factory.mktemp("readable")
    for split, name in itertools.product(("train", "val"), ("odd", "same")):
        (root / split / name).mkdir(parents=True)
        write_readable(root / split / name, photographs[0])
    return root


@pytest.fixture
def unreadable(tmp_path, photographs):
    """A folder of which a third cannot be read."""
    for split, name in itertools.product(("train", "val"), ("good", "odd")):
        (tmp_path / split / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(photographs[0]).resize((40, 30)).save(
                tmp_path / split / name / f"{number}.png"
            )
    write_unreadable(tmp_path / "train" / "odd", photographs[0])
    return tmp_path


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_unusual_files_have_the_pixels_of_pillow(readable):
    """Also the sideways photograph: neither turns it unless that is asked for."""
    for path in sorted((readable / "train" / "odd").iterdir()):
        with Image.open(path) as picture:
            expected = np.asarray(picture.convert("RGB"))
            turned = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        np.testing.assert_array_equal(load_image(path), expected, err_msg=path.name)
        np.testing.assert_array_equal(load_image(path, True), turned, err_msg=path.name)


def test_of_16_bits_the_high_ones_are_kept_and_not_the_brightest_cut_off(tmp_path, config):
    levels = np.linspace(0, 65535, 40 * 50).astype(np.uint16).reshape(40, 50)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    image = load_image(tmp_path / "deep.png")
    np.testing.assert_array_equal(image, np.repeat((levels >> 8)[..., None], 3, axis=-1))


def test_unusual_files_are_trained_on_and_evaluated(readable, config):
    source = open_source(f"folder:{readable}")
    size, report = source.sizes["train"], UnreadableImages()
    batches = train_batches(source, config, batch_size=size // 2, seed=0, unreadable=report)
    ids = []
    for batch in itertools.islice(batches.as_numpy_iterator(), 2):
        assert np.isfinite(batch["image"]).all()
        ids += batch["id"].tolist()
    assert sorted(ids) == list(range(size))
    assert not report.positions
    expected = {
        path.name: preprocess_evaluation(load_image(path), config).numpy()
        for path in (readable / "val" / "odd").iterdir()
    }
    for batch in evaluation_batches(source, "val", config, batch_size=5).as_numpy_iterator():
        for image, example in zip(batch["image"], batch["id"], strict=True):
            name = os.path.basename(source.describe("val", int(example)))
            np.testing.assert_array_equal(image, expected[name])


def test_unusual_files_are_predicted(readable, config):
    model = keras.Sequential(
        [
            keras.Input((24, 24, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, kernel_initializer="ones"),
        ]
    )
    paths = sorted((readable / "val" / "odd").iterdir())
    predictions = predict(TrainedModel(model, ("odd", "same"), config), paths)
    np.testing.assert_allclose([[share for _, share in best] for best in predictions], 0.5)
    assert len(predictions) == len(paths)


def test_unreadable_files_are_named_and_skipped_in_training(unreadable, config):
    source = open_source(f"folder:{unreadable}")
    bad = {str(path) for path in (unreadable / "train" / "odd").iterdir() if path.stem > "9"}
    report = UnreadableImages()
    batches = train_batches(source, config, batch_size=4, seed=0, unreadable=report)
    seen = {
        source.describe("train", int(example))
        for batch in itertools.islice(batches.as_numpy_iterator(), 5)
        for example in batch["id"]
    }
    assert set(report.positions) == bad
    assert len(bad) == 8
    assert not seen & bad


def test_unreadable_files_are_one_sentence_elsewhere(unreadable, config):
    files = [path for path in (unreadable / "train" / "odd").iterdir() if path.stem > "9"]
    assert len(files) == 8
    for path in files:
        message = rf"^{path} cannot be read as a JPEG or PNG image\.$"
        with pytest.raises(ValueError, match=message):
            load_image(path)
    for name in ("empty.jpg", "short.png"):  # training meets all of them above
        path = unreadable / "train" / "odd" / name
        target = unreadable / "val" / "odd" / path.name
        path.rename(target)
        source, report = open_source(f"folder:{unreadable}"), UnreadableImages()
        batches = evaluation_batches(source, "val", config, batch_size=4, unreadable=report)
        message = rf"^{target} cannot be read as a JPEG or PNG image\.$"
        with pytest.raises(UnreadableImageError, match=message), report.plain_errors():
            list(batches)
        target.unlink()


def test_files_of_other_endings_are_not_listed(readable, photographs, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for ending in ("png", "JPG", "gif", "bmp", "webp", "tiff"):
            file_format = {"JPG": "JPEG"}.get(ending)
            Image.fromarray(photographs[0][:9, :9]).save(
                tmp_path / name / f"image.{ending}", format=file_format
            )
    source = open_source(f"folder:{tmp_path}", holdout=None)
    listed = [os.path.basename(source.describe("train", i)) for i in range(source.sizes["train"])]
    assert listed == ["image.JPG", "image.png"] * 2
    for ending in ("png", "JPG"):
        (tmp_path / "b" / f"image.{ending}").unlink()
    with pytest.raises(ValueError, match=r"No PNG or JPEG images in .* for 'b'"):
        open_source(f"folder:{tmp_path}", holdout=None)


HUGE = """
import pathlib, re
import numpy as np
import tensorflow as tf
from pit_keras.data.pipeline import evaluation_batches, train_batches
from pit_keras.data.labelled_images import open_source
from pit_keras.config.fields import DataConfig

source, config = open_source("folder:."), DataConfig()
options = tf.data.Options()
options.threading.private_threadpool_size = 1  # images that are worked on at the same time
options.autotune.enabled = False  # and no more in between than are waited for


def peak():
    # In kB. `getrusage` would count what the parent had when it made this process.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])


before = peak()
for batches in (
    evaluation_batches(source, "val", config, batch_size=2),
    train_batches(source, config, batch_size=2, seed=0).take(1),
):
    for batch in batches.with_options(options).as_numpy_iterator():
        spread = np.ptp(batch["image"], axis=(1, 2)).max()
    print(spread, (peak() - before) / 2**20)
"""


@pytest.mark.parametrize("side", [7_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_large_images_do_not_fill_the_memory(side, tmp_path):
    """Decoded each has 3 bytes a pixel, as float32 it would have 12. While one is augmented, with a
    crop of its own, the next may be decoded: 9 bytes.
    """
    Image.new("L", (side, side), 90).save(tmp_path / "huge.png")
    for split, name in itertools.product(("train", "val"), ("a", "b")):
        (tmp_path / split / name).mkdir(parents=True)
        os.link(tmp_path / "huge.png", tmp_path / split / name / "huge.png")
    (tmp_path / "huge.png").unlink()
    process = forked.run_code(HUGE, tmp_path)
    assert process.returncode == 0, process.stderr
    for line in process.stdout.splitlines():
        spread, gigabytes = map(float, line.split())
        assert spread == 0
        assert 1 < gigabytes * 2**30 / side**2 < 12
