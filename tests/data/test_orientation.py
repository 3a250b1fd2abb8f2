"""The orientation in EXIF against Pillow's `exif_transpose`, and how often a folder has one."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import ExifTags, Image, ImageOps

import pit_keras
from pit_keras.data import labelled_images
from pit_keras.data.labelled_images import open_source, oriented
from pit_keras.data.orientation import count_turned, orientation_of
from pit_keras.data.pipeline import evaluation_batches, train_batches
from pit_keras.data.preprocessing import decode, decode_box, load_image, preprocess_evaluation

NUMBERS = range(1, 9)
EXIF = b"Exif\0\0"
APP0 = b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def exif_of(orientation, endian="<"):
    exif = Image.Exif()
    exif.endian = endian
    exif[ExifTags.Base.Make] = "a maker"  # stands before it
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Software] = "a program"
    return exif


def encode(photograph, orientation, endian="<", **options):
    file = io.BytesIO()
    exif = exif_of(orientation, endian)
    Image.fromarray(photograph).save(file, "JPEG", exif=exif, **options)
    return file.getvalue()


def shown(contents):
    with Image.open(io.BytesIO(contents)) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


@pytest.fixture(scope="module")
def piece(photographs):
    return photographs[0][100:191, 200:333]


def traced(function, *inputs):
    """A function as a pipeline runs it, traced once for the module's tests."""
    return tf.function(function, input_signature=inputs, autograph=False)


CONTENTS, BOX = tf.TensorSpec((), tf.string), tf.TensorSpec((4,), tf.int32)


@pytest.fixture(scope="module")
def read():
    function = traced(orientation_of, CONTENTS)
    return lambda contents: int(function(contents))


@pytest.fixture(scope="module")
def decode_turned():
    return traced(lambda contents: decode(contents, True), CONTENTS)


@pytest.fixture(scope="module")
def decode_turned_box():
    def function(contents, box):
        return decode_box(contents, lambda height, width: box, True)

    return traced(function, CONTENTS, BOX)


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("orientation", NUMBERS)
def test_a_photograph_is_turned_as_pillow_turns_it(piece, decode_turned, orientation, endian):
    contents = encode(piece, orientation, endian)
    turned = decode_turned(contents)
    np.testing.assert_array_equal(turned, shown(contents))
    np.testing.assert_array_equal(decode(contents, True), turned)  # eagerly too
    assert np.array_equal(turned, decode(contents)) == (orientation == 1)


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("orientation", NUMBERS)
@pytest.mark.parametrize("behind", [b"", b"more"], ids=["fast", "by way of the whole image"])
def test_a_box_has_the_pixels_of_the_turned_image(
    piece, decode_turned_box, orientation, subsampling, behind
):
    contents = encode(piece, orientation, subsampling=subsampling) + behind
    whole = shown(contents)
    height, width = whole.shape[:2]

    rng = np.random.default_rng(orientation)
    boxes = [(0, 0, height, width), (height - 1, width - 1, 1, 1), (0, width - 1, height, 1)]
    for _ in range(20):
        high, wide = rng.integers(1, height + 1), rng.integers(1, width + 1)
        boxes.append((rng.integers(height - high + 1), rng.integers(width - wide + 1), high, wide))
    for top, left, high, wide in boxes:
        expected = whole[top : top + high, left : left + wide]
        np.testing.assert_array_equal(
            decode_turned_box(contents, (top, left, high, wide)), expected
        )


def test_a_box_is_chosen_by_the_turned_size(piece):
    contents = encode(piece, 6)
    box = decode_box(contents, lambda height, width: tf.stack([height - 5, width - 7, 2, 3]), True)
    np.testing.assert_array_equal(box, shown(contents)[-5:-3, -7:-4])


def segment(marker, content):
    return b"\xff" + marker + struct.pack(">H", len(content) + 2) + content


def tiff(orientation=6, order="<", kind=3, count=1, entries=1, magic=42, offset=8, mark=None):
    mark = mark or {"<": b"II", ">": b"MM"}[order]
    header = mark + struct.pack(f"{order}HI", magic, offset)
    entry = struct.pack(f"{order}HHIHH", 0x0112, kind, count, orientation, 0)
    return header + struct.pack(f"{order}H", entries) + entry


def jpeg(*segments):
    return b"\xff\xd8" + b"".join(segments) + b"\xff\xda"


def app1(content):
    return segment(b"\xe1", EXIF + content)


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (jpeg(app1(tiff())), 6),
        (jpeg(app1(tiff(order=">"))), 6),
        (jpeg(APP0, app1(tiff())), 6),
        (jpeg(segment(b"\xe1", b"http://ns.adobe.com/xap/1.0/\0<x/>"), app1(tiff())), 6),
        (jpeg(segment(b"\xfe", b"a comment"), APP0, app1(tiff())), 6),
        (jpeg(b"\xff\xff\xff", app1(tiff())), 6),  # fill bytes
        (jpeg(app1(tiff(entries=65535))), 6),  # more than there are
        (jpeg(app1(tiff(orientation=0))), 1),
        (jpeg(app1(tiff(orientation=9))), 1),
        (jpeg(app1(tiff(orientation=65535, order=">"))), 1),
        (jpeg(app1(tiff(kind=2))), 1),
        (jpeg(app1(tiff(count=2))), 1),
        (jpeg(app1(tiff(count=65536))), 1),
        (jpeg(app1(tiff(magic=43))), 1),
        (jpeg(app1(tiff(mark=b"XX"))), 1),
        (jpeg(app1(tiff(order=">", mark=b"II"))), 1),
        (jpeg(app1(tiff(offset=2**32 - 1))), 1),
        (jpeg(app1(tiff(offset=8 + 2**16))), 1),
        (jpeg(app1(b"")), 1),
        (jpeg(APP0), 1),
        (jpeg(segment(b"\xdb", b"a table"), app1(tiff())), 1),  # decoding has begun
        (jpeg(*[APP0] * 65, app1(tiff())), 1),
        (jpeg(b"\xff\xe0\xff\xff", app1(tiff())), 1),  # leads beyond the end
        (app1(tiff()), 1),  # no JPEG
        (b"\x89PNG\r\n\x1a\n" + app1(tiff()), 1),
        (b"", 1),
        (b"\xff", 1),
        (b"\xff\xd8", 1),
    ],
)
def test_where_it_is_found_and_where_not(read, contents, expected):
    assert read(contents) == expected


def test_no_bytes_raise_an_error(read, piece):
    contents = encode(piece, 6)[:150]
    rng = np.random.default_rng(0)
    assert {read(contents[:size]) for size in range(150)} == {1, 6}
    for _ in range(300):
        damaged = np.frombuffer(contents, np.uint8).copy()
        damaged[rng.integers(len(damaged), size=3)] = rng.integers(256, size=3)
        assert 1 <= read(damaged.tobytes()) <= 8


# How a camera that is turned so stores what is to be shown upright.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture
def folder(tmp_path):
    """Landscapes, light above and dark below, stored in all orientations; half have the sea."""
    for split in ("train", "val"):
        for name, below in (("land", 60), ("sea", 0)):
            (tmp_path / split / name).mkdir(parents=True)
            pixels = np.full((64, 96, 3), 240, np.uint8)
            pixels[32:] = below
            for orientation in NUMBERS:
                stored = Image.fromarray(pixels)
                if orientation in STORED:
                    stored = stored.transpose(STORED[orientation])
                path = tmp_path / split / name / f"{orientation}.jpg"
                stored.save(path, exif=exif_of(orientation))
    return tmp_path


def sky_above(images):
    """How many images are lighter in the upper quarter than in the lower one."""
    rows = images.mean(axis=(2, 3))
    return np.count_nonzero(rows[:, :6].mean(axis=1) > rows[:, -6:].mean(axis=1) + 1)


@pytest.mark.parametrize(("applied", "upright"), [(False, 4), (True, 16)])
def test_training_and_evaluation_see_it_applied_or_not(folder, config, applied, upright):
    """Without, only what is not turned or just mirrored has the sky above."""
    config.apply_orientation, config.crop_scale, config.cutmix_alpha = applied, (0.9, 1.0), 0.0
    source = open_source(f"folder:{folder}")  # which the pipeline brings into line
    (evaluated,) = evaluation_batches(source, "val", config, batch_size=16).as_numpy_iterator()
    assert sky_above(evaluated["image"]) == upright
    for image, number in zip(evaluated["image"], evaluated["id"], strict=True):
        path = source.describe("val", int(number))
        expected = preprocess_evaluation(load_image(path, applied), config)
        np.testing.assert_array_equal(image, expected)
    (trained,) = train_batches(source, config, batch_size=16, seed=0).take(1).as_numpy_iterator()
    assert sky_above(trained["image"]) == upright


@pytest.mark.parametrize(("applied", "upright"), [(False, 4), (True, 16)])
def test_a_data_set_for_fit_takes_it_from_the_recipe(folder, applied, upright):
    recipe = pit_keras.recipe("vanilla", "pit_ti")
    recipe.data.apply_orientation = applied
    options = {"image_size": 24, "batch_size": 16, "training": False}
    ((images, _),) = pit_keras.data.image_folder(folder, recipe=recipe, **options)
    assert sky_above(images.numpy()) == upright


@pytest.mark.parametrize(
    ("applied", "words"),
    [
        (False, "not applied; train with --config.data.apply_orientation=true to turn them"),
        (True, "applied"),
    ],
)
def test_opening_a_data_set_says_how_many_it_concerns(folder, caplog, applied, words):
    name = f"folder:{folder}"
    oriented(open_source(name), applied)
    sentence = f"{name}: 28 of 32 images carry an EXIF orientation, which is {words}."
    assert caplog.messages == [sentence]


def test_of_many_files_a_sample_is_looked_at(folder, monkeypatch, caplog):
    monkeypatch.setattr(labelled_images, "MOST_LOOKED_AT", 10)
    oriented(open_source(f"folder:{folder}"), False)
    # Every fourth of 16 in training, and of 16 in validation: those of the numbers 1 and 5.
    assert "4 of 8 images looked at carry" in caplog.text


def test_a_data_set_without_says_nothing(image_folder, few_digits, caplog):
    oriented(open_source(f"folder:{image_folder}"), False)
    oriented(few_digits, True)
    assert not caplog.messages


@pytest.mark.parametrize("endian", "<>")
def test_photographs_of_both_byte_orders_are_counted(tmp_path, piece, endian):
    paths = [tmp_path / f"{orientation}.jpg" for orientation in range(10)]
    for orientation, path in enumerate(paths):
        path.write_bytes(encode(piece, orientation, endian))
    assert [count_turned([path]) for path in paths] == [0, 0, *[1] * 7, 0]


def test_files_that_cannot_be_read_are_not_counted(tmp_path):
    whole = tmp_path / "whole.jpg"
    whole.write_bytes(jpeg(app1(tiff())))
    (tmp_path / "text.jpg").write_text("Exif")
    (tmp_path / "folder.jpg").mkdir()
    names = ("whole.jpg", "text.jpg", "folder.jpg", "missing.jpg")
    assert count_turned([tmp_path / name for name in names]) == 1
