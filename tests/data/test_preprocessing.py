import io
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tolerances import assert_close

from pit_keras.data.preprocessing import (
    decode,
    decode_box,
    evaluation_geometry,
    load_image,
    normalise,
    preprocess_evaluation,
    resize,
    resize_and_crop,
)


def encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
        ("PNG", "L"),
        ("PNG", "LA"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("PNG", "1"),
    ],
)
def test_decode_gives_the_pixels_of_pillow(photographs, file_format, mode):
    contents = encode(Image.fromarray(photographs[0][:61, :83]).convert(mode), file_format)
    expected = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
    np.testing.assert_array_equal(decode(contents), expected)


def test_decode_keeps_the_high_byte_of_16_bits():
    levels = np.arange(0, 65536, 257 * 5, dtype=np.uint16).reshape(4, 13)
    image = decode(encode(Image.fromarray(levels), "PNG")).numpy()
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.repeat((levels >> 8)[..., None], 3, axis=-1))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_decode_refuses_what_is_cut_short(photographs, file_format):
    contents = encode(Image.fromarray(photographs[0][:61, :83]), file_format)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(contents[: len(contents) // 2])


KINDS = [
    ("JPEG", "RGB", {"subsampling": "4:2:0"}),
    ("JPEG", "RGB", {"subsampling": "4:2:2"}),
    ("JPEG", "RGB", {"subsampling": "4:4:4"}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("PNG", "RGB", {}),
    ("PNG", "P", {}),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_decoded_box_has_the_pixels_of_the_whole_image(photographs, kind):
    file_format, mode, options = kind
    photograph = Image.fromarray(photographs[0][100:191, 200:333]).convert(mode)
    contents = encode(photograph, file_format, **options)
    whole = decode(contents).numpy()

    @tf.function(input_signature=[tf.TensorSpec((4,), tf.int32)])
    def decoded(box):
        return decode_box(contents, lambda height, width: box)

    rng = np.random.default_rng(0)
    corners = [(0, 0, 91, 133), (0, 0, 1, 1), (90, 132, 1, 1), (16, 16, 32, 32)]
    for _ in range(40):
        height, width = rng.integers(1, 92), rng.integers(1, 134)
        corners.append((rng.integers(92 - height), rng.integers(134 - width), height, width))
    for top, left, height, width in corners:
        np.testing.assert_array_equal(
            decoded((top, left, height, width)), whole[top : top + height, left : left + width]
        )


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_a_box_is_chosen_by_the_size_of_the_image(photographs, file_format):
    contents = encode(Image.fromarray(photographs[0][:61, :83]), file_format)

    box = decode_box(contents, lambda height, width: tf.stack([height - 5, width - 7, 2, 3]))

    np.testing.assert_array_equal(box, decode(contents)[56:58, 76:79])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [0, 1, 40, -2, -300])
def test_a_box_of_what_is_cut_short_is_refused(photographs, file_format, size):
    contents = encode(Image.fromarray(photographs[0][:161, :183]), file_format)[:size]

    # The box lies in the part that is there.
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_box(contents, lambda height, width: tf.constant([0, 0, 1, 1]))


def test_bytes_behind_a_jpeg_do_not_matter(photographs):
    contents = encode(Image.fromarray(photographs[0][:61, :83]), "JPEG") + b"more"

    box = decode_box(contents, lambda height, width: tf.constant([3, 4, 20, 30]))

    np.testing.assert_array_equal(box, decode(contents)[3:23, 4:34])


@pytest.mark.parametrize("size", [(224, 298), (97, 61), (500, 800)])
def test_resize_agrees_with_pillow(photographs, size):
    for photograph in photographs:
        height, width = size
        expected = np.asarray(
            Image.fromarray(photograph).resize((width, height), Image.Resampling.BICUBIC)
        )
        difference = np.abs(resize(photograph, size).numpy() - expected)
        assert difference.mean() < 0.3
        assert np.quantile(difference, 0.999) <= 2


def test_resize_stays_within_whole_levels():
    edge = np.zeros((20, 20, 3), np.uint8)
    edge[:, 10:] = 255
    enlarged = resize(edge, (50, 50)).numpy()
    assert enlarged.min() == 0
    assert enlarged.max() == 255
    np.testing.assert_array_equal(enlarged, np.round(enlarged))


def torchvision_geometry(height, width, size, crop_ratio):
    """timm's evaluation transform for square targets: Resize(short side), then CenterCrop."""
    short = math.floor(size / crop_ratio)
    if width <= height:
        resized = (int(short * height / width), short)
    else:
        resized = (short, int(short * width / height))
    return resized, tuple(round((side - size) / 2.0) for side in resized)


@pytest.mark.parametrize(("size", "crop_ratio"), [(224, 0.9), (224, 0.875), (384, 1.0), (33, 0.7)])
def test_geometry_is_that_of_torchvision(size, crop_ratio):
    sides = np.random.default_rng(0).integers(20, 900, (200, 2))
    for height, width in [*sides, (375, 500), (500, 375), (248, 249), (224, 224)]:
        resized, corner = evaluation_geometry(height, width, (size, size), crop_ratio)
        expected = torchvision_geometry(height, width, size, crop_ratio)
        assert (tuple(resized.numpy()), tuple(corner.numpy())) == expected


@pytest.mark.parametrize("image_size", [(64, 128), (128, 64)])
def test_geometry_covers_rectangles_without_waste(image_size):
    for height, width in [(100, 100), (427, 640), (640, 427), (50, 400)]:
        resized, corner = (t.numpy() for t in evaluation_geometry(height, width, image_size, 0.8))
        target = np.floor(np.array(image_size) / 0.8)
        assert (resized >= target).all()
        assert (resized == target).any()
        assert (corner >= 0).all()
        assert (corner + image_size <= resized).all()


@pytest.mark.parametrize(
    ("image_size", "crop_ratio"), [((224, 224), 0.9), ((224, 224), 0.875), ((120, 200), 0.9)]
)
def test_resize_and_crop_is_a_resize_and_a_centre_crop(photographs, image_size, crop_ratio):
    photograph = photographs[1]
    resized, (top, left) = evaluation_geometry(*photograph.shape[:2], image_size, crop_ratio)
    expected = resize(photograph, resized)[top : top + image_size[0], left : left + image_size[1]]
    difference = np.abs(resize_and_crop(photograph, image_size, crop_ratio) - expected)
    assert difference.max() <= 1  # where the exact value lies half-way between two levels
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_resize_and_crop_traces_with_unknown_sizes(photographs, dtype):
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), dtype)])
    def serve(images):
        return resize_and_crop(images, (32, 48), 0.9)

    assert serve.get_concrete_function().output_shapes == (None, 32, 48, 3)
    for batch in (np.stack(photographs)[:, :100, :70], np.stack(photographs)[:, :9, :30]):
        crops = serve(tf.cast(batch, dtype)).numpy()
        for crop, image in zip(crops, batch, strict=True):
            np.testing.assert_array_equal(crop, resize_and_crop(image, (32, 48), 0.9))


def test_normalise(photographs):
    mean, std = (0.5, 0.4, 0.3), (0.1, 0.2, 0.4)
    expected = (photographs[0] / 255.0 - mean) / std
    # Two factors, their product, the offset and the difference, of numbers up to 1 / 0.1.
    assert_close(normalise(photographs[0], mean, std), expected, roundings=5, scale=10)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    def unknown_size(images):
        return normalise(images, mean, std)

    assert_close(unknown_size(photographs[0][None])[0], expected, roundings=5, scale=10)


def test_preprocess_evaluation_composes(photographs, config):
    config.eval_crop = 0.75
    expected = normalise(
        resize_and_crop(photographs[0], config.image_size, 0.75), config.mean, config.std
    )
    np.testing.assert_array_equal(preprocess_evaluation(photographs[0], config), expected)


def test_load_image(photographs, tmp_path):
    Image.fromarray(photographs[0]).save(tmp_path / "photograph.png")
    image = load_image(tmp_path / "photograph.png")
    assert isinstance(image, np.ndarray)
    np.testing.assert_array_equal(image, photographs[0])


def test_load_image_names_what_it_cannot_read(photographs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.jpg"):
        load_image(tmp_path / "missing.jpg")
    with pytest.raises(ValueError, match=f"{tmp_path} cannot be read as"):
        load_image(tmp_path)
    (tmp_path / "notes.jpg").write_text("not an image")
    with pytest.raises(ValueError, match=r"notes\.jpg cannot be read"):
        load_image(tmp_path / "notes.jpg")
    contents = encode(Image.fromarray(photographs[0]), "JPEG")
    (tmp_path / "short.jpg").write_bytes(contents[:-5000])
    with pytest.raises(ValueError, match=r"short\.jpg cannot be read"):
        load_image(tmp_path / "short.jpg")
