"""What is read of an image file: the same files as in training, and their forms."""

import dataclasses
import io
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_odd_images import SIDEWAYS, write_readable, write_unreadable

from pit_keras.config.fields import DataConfig
from pit_keras.data.image_facts import CHUNK, ImageFacts, open_reduced, read_image, read_images
from pit_keras.data.preprocessing import load_image, preprocess_evaluation

FORMS = ("is_grey", "is_cmyk", "is_transparent", "orientation", "misnamed")


@pytest.fixture(scope="module")
def odd(tmp_path_factory, photographs):
    """{name: facts} of readable and unreadable unusual files."""
    folder = tmp_path_factory.mktemp("odd")
    write_readable(folder, photographs[0])
    write_unreadable(folder, photographs[0])
    picture = Image.fromarray(photographs[0][:61, :83])
    picture.save(folder / "plain.jpg")
    picture.convert("RGBA").save(folder / "opaque.png")
    return {name: read_image(str(folder / name)) for name in os.listdir(folder)}, folder


def test_the_files_that_training_cannot_read_are_those_with_a_problem(odd):
    facts, folder = odd
    refused = set()
    for name in facts:
        try:
            load_image(folder / name)
        except ValueError:
            refused.add(name)
    assert {name for name, each in facts.items() if each.problem} == refused
    assert facts["a_webp.jpg"].problem.endswith("(its format is WEBP)")
    assert facts["short.png"].problem == "is damaged or cut short"


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("plain.jpg", {}),
        ("opaque.png", {}),
        ("grey.jpg", {"is_grey": True}),
        ("cmyk.jpg", {"is_cmyk": True}),
        ("sideways.jpg", {"orientation": SIDEWAYS}),
        ("a_png.jpg", {"misnamed": "PNG"}),
        ("a_jpeg.png", {"misnamed": "JPEG"}),
        ("a_still_gif.jpg", {"misnamed": "GIF"}),
        ("transparent_palette.png", {"is_transparent": True}),
        ("black_and_white.png", {"is_grey": True}),
    ],
)
def test_forms(name, form, odd):
    facts = odd[0][name]
    usual = {name: getattr(ImageFacts(), name) for name in FORMS}
    assert {name: getattr(facts, name) for name in FORMS} == {**usual, **form}
    assert facts.size == (83, 61)


def test_a_transparent_grey_image_is_both(odd, tmp_path):
    Image.new("LA", (40, 40), (90, 128)).save(tmp_path / "x.png")
    facts = read_image(str(tmp_path / "x.png"))
    assert facts.is_grey
    assert facts.is_transparent


def test_equal_pixels_have_one_digest_whatever_else_is_in_the_file(tmp_path, photographs):
    picture = Image.fromarray(photographs[0])
    picture.save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    note = b"\xff\xfe\x00\x06note"  # a JPEG's comment
    (tmp_path / "b.jpg").write_bytes(content[:2] + note + content[2:])
    picture.save(tmp_path / "c.jpg", quality=74)
    one, same, other = (read_image(str(tmp_path / f"{name}.jpg")).digest for name in "abc")
    assert one == same != other


def test_a_large_jpeg_is_reduced_while_it_is_decoded(tmp_path, photographs):
    Image.fromarray(photographs[0]).save(tmp_path / "a.jpg")  # 640 x 427
    facts = read_image(str(tmp_path / "a.jpg"))
    assert facts.size == (640, 427)
    assert open_reduced(tmp_path / "a.jpg", 64).shape == (107, 160, 3)
    assert open_reduced(tmp_path / "a.jpg", 214).shape == (427, 640, 3)
    small = np.asarray(Image.fromarray(photographs[0]).resize((32, 32), Image.Resampling.BOX))
    assert np.abs(facts.small.astype(float) - small).mean() < 8  # other filters


def test_damage_in_a_part_that_is_reduced_is_seen(tmp_path, photographs):
    file = io.BytesIO()
    Image.fromarray(photographs[0]).save(file, "JPEG")
    (tmp_path / "a.jpg").write_bytes(file.getvalue()[:-2000])
    assert read_image(str(tmp_path / "a.jpg")).problem
    assert open_reduced(tmp_path / "a.jpg", 64) is None
    assert open_reduced(tmp_path / "none.jpg", 64) is None


def test_the_crop_is_what_a_model_sees(tmp_path, photographs):
    Image.fromarray(photographs[1]).save(tmp_path / "a.png")
    data = DataConfig(image_size=(24, 32), mean=(0.0,) * 3, std=(1.0,) * 3)
    crop = read_image(str(tmp_path / "a.png"), data).crop
    seen = preprocess_evaluation(load_image(tmp_path / "a.png"), data)
    assert np.array_equal(crop, tf.cast(tf.round(255 * seen), tf.uint8))


def test_images_come_in_their_order(tmp_path, photographs):
    paths = []
    for number in range(CHUNK + 3):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (number + 1, 3)).save(paths[-1])
    chunks = list(read_images(paths))
    assert [len(chunk) for chunk in chunks] == [CHUNK, 3]
    assert [each.size[0] for chunk in chunks for each in chunk] == list(range(1, CHUNK + 4))
    assert "No such file" in dataclasses.asdict(read_image(str(tmp_path / "none.png")))["problem"]
