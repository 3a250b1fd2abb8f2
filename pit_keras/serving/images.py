"""Encoded images of strangers: what they would cost is read from the header before decoding."""

import struct

import tensorflow as tf

from pit_keras.data.preprocessing import decode

MOST_PIXELS_OF_A_SIDE = (
    65_535  # JPEG's own limit; beyond it sizes no longer fit 32 bits when scaled
)
# A progressive JPEG is decoded once over for each scan, however few bytes it has. Encoders write
# about ten.
MOST_SCANS = 100

_JPEG_START = b"\xff\xd8\xff"
_JPEG_SCAN = b"\xff\xda"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = slice(12, 24)  # "IHDR", width, height


def decode_safely(contents, max_pixels):
    """Decodes JPEG or PNG bytes as `pit_keras.data.preprocessing.decode` does, within limits.

    Args:
        contents: The bytes.
        max_pixels: Height times width that is still decoded.

    Returns:
        uint8 (H, W, 3), a tensor.

    Raises:
        ValueError: If they are no complete JPEG or PNG image, or too large a one. The sentence
            begins with a verb, for the image's name to be put before it.
    """
    height, width = _size(contents)
    if height * width > max_pixels:
        raise ValueError(
            f"has {width} x {height} pixels, and this server takes {max_pixels:,} at most."
        )
    if max(height, width) > MOST_PIXELS_OF_A_SIDE:
        raise ValueError(
            f"has {width} x {height} pixels, and a side has {MOST_PIXELS_OF_A_SIDE:,} at most."
        )
    if contents.startswith(_JPEG_START) and contents.count(_JPEG_SCAN) > MOST_SCANS:
        raise ValueError(f"is a JPEG of more than {MOST_SCANS} scans.")
    try:
        return decode(contents)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError("is damaged or cut short, so it cannot be decoded.") from error


def _size(contents):
    """Height and width by the header."""
    try:
        if contents.startswith(_JPEG_START):
            height, width, _ = tf.io.extract_jpeg_shape(contents).numpy()
            return int(height), int(width)
        if contents.startswith(_PNG_START):
            kind, width, height = struct.unpack(">4sII", contents[_PNG_HEADER])
            if kind == b"IHDR":
                return height, width
    except (tf.errors.InvalidArgumentError, struct.error) as error:
        raise ValueError("is damaged or cut short, so it cannot be decoded.") from error
    raise ValueError("is not a JPEG or PNG image.")
