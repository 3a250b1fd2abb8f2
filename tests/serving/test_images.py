import struct
import zlib

import numpy as np
import pytest
from servers import encoded

from pit_keras.data.preprocessing import decode
from pit_keras.serving.images import MOST_SCANS, decode_safely

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
JPEG, PNG = encoded(PIXELS, "JPEG"), encoded(PIXELS, "PNG")


def png_of_size(width, height):
    """A PNG's header, that promises so much, and nothing in it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return PNG[:8] + chunk + PNG[33:]


@pytest.mark.parametrize("contents", [JPEG, PNG, encoded(PIXELS, "JPEG", progressive=True)])
def test_images_are_decoded_as_everywhere(contents):
    decoded = decode_safely(contents, max_pixels=600)
    np.testing.assert_array_equal(decoded, decode(contents))


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "is not a JPEG or PNG"),
        (b"GIF89a" + bytes(100), "is not a JPEG or PNG"),
        (encoded(PIXELS, "GIF"), "is not a JPEG or PNG"),
        (b"<svg/>", "is not a JPEG or PNG"),
        (JPEG[:3], "damaged or cut short"),
        (JPEG[:-200], "damaged or cut short"),
        (PNG[:20], "damaged or cut short"),
        (PNG[:-200], "damaged or cut short"),
        (PNG[:100] + bytes(500) + PNG[600:], "damaged or cut short"),
        (PNG[:8] + b"\0\0\0\rIEND" + PNG[16:], "is not a JPEG or PNG"),
        (png_of_size(30, 21), "has 30 x 21 pixels, and this server takes 600 at most"),
        (png_of_size(2**31 - 1, 2**31 - 1), "this server takes 600 at most"),
        (encoded(np.zeros((601, 1, 3), np.uint8), "JPEG"), "has 1 x 601 pixels"),
        (JPEG + b"\xff\xda" * MOST_SCANS, "more than 100 scans"),
    ],
)
def test_what_is_no_image_or_too_large_is_refused(contents, words):
    with pytest.raises(ValueError, match=words):
        decode_safely(contents, max_pixels=600)


def test_a_side_that_cannot_be_scaled_is_refused():
    with pytest.raises(ValueError, match="a side has 65,535 at most"):
        decode_safely(png_of_size(70_000, 1), max_pixels=100_000)
