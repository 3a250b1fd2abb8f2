"""What is to be known of each image file of a folder: form, pixels' hash, a small picture.

Each file is read once, by several threads, and decoded as training decodes it.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from PIL import Image

from pit_keras.data.orientation import orientation_of, turned
from pit_keras.data.preprocessing import decode, resize_and_crop
from pit_keras.data.unreadable import NOT_AN_IMAGE

SIDE = 32  # of the small picture
CHUNK = 64  # images that are held in memory at a time
_ORIENTATION = 0x0112  # EXIF's tag
_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """One image file; of one that cannot be read, `problem` alone."""

    problem: str = ""
    size: tuple[int, int] = (0, 0)  # width, height
    digest: bytes = b""  # equal for equal pixels
    small: np.ndarray | None = None  # uint8 (SIDE, SIDE, 3)
    crop: np.ndarray | None = None  # what a model sees, uint8 (H, W, 3)
    is_grey: bool = False
    is_cmyk: bool = False
    is_transparent: bool = False
    orientation: int = 1  # EXIF's; 1 is upright
    misnamed: str = ""  # the format, where the ending says another


def read_images(paths, data=None, track=lambda items: items):
    """Yields lists of the `ImageFacts` of image files, in their order.

    With `data`, a `DataConfig`, the facts have the crop of its evaluation. `track` wraps the list
    of steps, to show their progress.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for chunk in track(chunks):
            yield list(threads.map(lambda path: read_image(path, data), chunk))


def read_image(path, data=None):
    """The `ImageFacts` of one file; see `read_images`."""
    try:
        with open(path, "rb") as file:
            contents = file.read()
    except OSError as error:
        return ImageFacts(problem=f"cannot be read ({error.strerror})")
    header = _header(contents)
    try:
        pixels = decode_reduced(contents, header, 2 * SIDE if data is None else _least_side(data))
    except tf.errors.OpError:
        if header is None:
            return ImageFacts(problem=NOT_AN_IMAGE)
        if header.format in ("JPEG", "MPO", "PNG"):
            return ImageFacts(problem="is damaged or cut short")
        return ImageFacts(problem=f"{NOT_AN_IMAGE} (its format is {header.format})")
    height, width = pixels.shape[:2]
    size = (width, height) if header is None else header.size
    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    crop = None
    if data is not None:
        seen = turned(pixels, orientation_of(contents)) if data.apply_orientation else pixels
        crop = tf.cast(resize_and_crop(seen, data.image_size, data.eval_crop), tf.uint8).numpy()
    facts = ImageFacts(
        size=size,
        digest=hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=repr(size).encode()).digest(),
        small=np.asarray(small),
        crop=crop,
        is_grey=bool(np.ptp(np.asarray(small), axis=-1).max() <= 2),  # JPEG rounds its colours
    )
    return facts if header is None else dataclasses.replace(facts, **_of_header(header, path))


def decode_reduced(contents, header, least):
    """The pixels, uint8 (H, W, 3); of a large JPEG a half, a quarter or an eighth of its size.

    Neither side becomes shorter than `least`. `header` is Pillow's image, or None.
    """
    if header is None or header.format not in ("JPEG", "MPO"):
        return decode(contents).numpy()
    ratio = next((r for r in (8, 4, 2) if min(header.size) >= r * least), 1)
    return tf.io.decode_jpeg(
        contents, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
    ).numpy()


def open_reduced(path, least):
    """The pixels of a file as `decode_reduced` gives them, or None if it cannot be read."""
    with contextlib.suppress(OSError, tf.errors.OpError), open(path, "rb") as file:
        contents = file.read()
        return decode_reduced(contents, _header(contents), least)
    return None


def _header(contents):
    """Pillow's image, whose pixels are not read; None for what Pillow does not know."""
    with contextlib.suppress(Exception):  # Pillow has no error of its own for damage
        return Image.open(io.BytesIO(contents))
    return None


def _of_header(header, path):
    named = _FORMATS.get(os.path.splitext(path)[1].lower())
    real = "JPEG" if header.format == "MPO" else header.format  # of phones with several lenses
    misnamed = real if named not in (None, real) else ""
    facts = {"is_cmyk": header.mode == "CMYK", "misnamed": misnamed}
    with contextlib.suppress(Exception):
        facts["orientation"] = int(header.getexif().get(_ORIENTATION, 1))
        if header.mode in ("RGBA", "LA", "PA") or "transparency" in header.info:
            facts["is_transparent"] = header.convert("RGBA").getchannel("A").getextrema()[0] < 255
    return facts


def _least_side(data):
    return int(max(data.image_size) / data.eval_crop) + 1
