"""What a request asks for: its body, read and unzipped within limits, its JSON and its images.

What a stranger's image would cost is read from its header before it is decoded.
"""

import base64
import json
import struct
import zlib
from typing import NamedTuple

import anyio
import tensorflow as tf
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pit_keras.data.preprocessing import decode

INPUT = "image_bytes"
SIGNATURES = ("serving_default", "serve_bytes")

# More brackets and commas than these would cost many times the body's size once it is parsed.
_STRUCTURE = b"{[,"
_STRUCTURE_PER_INSTANCE = 8

# JPEG's own limit; beyond it sizes no longer fit 32 bits when scaled.
MOST_PIXELS_OF_A_SIDE = 65_535
# A progressive JPEG is decoded once over for each scan, however few bytes it has. Encoders write
# about ten.
MOST_SCANS = 100

_JPEG_START = b"\xff\xd8\xff"
_JPEG_SCAN = b"\xff\xda"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = slice(12, 24)  # "IHDR", width, height
_DAMAGED = "is damaged or cut short, so it cannot be decoded."
_EXAMPLE = '{"instances": [{"b64": "..."}]}'


class Asked(NamedTuple):
    """Encoded images, whether they came as a column, and whose stage's attention is asked for."""

    images: list[bytes]
    columnar: bool
    stage: int | None = None


async def read_body(request, limits):
    """A request's body; an HTTPException as soon as it is too large or late, or its client left."""
    too_large = _too_large(limits)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.max_request_bytes:
        raise too_large
    body = bytearray()
    try:
        with anyio.fail_after(limits.timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_request_bytes:
                    raise too_large
    except TimeoutError:
        sentence = f"The request did not arrive within {limits.timeout:g} seconds."
        raise HTTPException(408, sentence) from None
    except ClientDisconnect:
        raise HTTPException(400, "The client left before its request was complete.") from None
    return bytes(body)


def unzipped(body, encoding, limits):
    """The body without its Content-Encoding; an HTTPException as soon as it is too large."""
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise HTTPException(415, f"The request's Content-Encoding is {encoding}; use gzip or none.")
    inflater = zlib.decompressobj(wbits=31)  # with gzip's header
    try:
        content = inflater.decompress(body, limits.max_request_bytes + 1)
    except zlib.error as error:
        raise _bad(f"The request is not gzip, as its Content-Encoding says: {error}.") from None
    if len(content) > limits.max_request_bytes:
        raise _too_large(limits)
    if not inflater.eof or inflater.unused_data:
        raise _bad("The request is not one whole gzip stream, as its Content-Encoding says.")
    return content


def _too_large(limits):
    allowed = f"{limits.max_request_bytes:,}"
    return HTTPException(413, f"The request is larger than the {allowed} bytes that are allowed.")


def parse(body, most_instances, explain=False):
    """The images of a request in the form of TensorFlow Serving's REST API, as an `Asked`.

    `{"instances": [INSTANCE, ...]}`, where each is `{"b64": "..."}` or `{"image_bytes": {"b64":
    "..."}}`; or `{"inputs": COLUMN}`, where the column is a list of `{"b64": "..."}` or
    `{"image_bytes": [...]}` with such a list. With `explain` there may be a "stage". Anything else
    is an HTTPException, 400.
    """
    content = _json(body, most_instances)
    known = {"instances", "inputs", "signature_name", *(["stage"] if explain else [])}
    unknown = sorted(content.keys() - known)
    if unknown:
        raise _bad(f'There is no "{unknown[0]}" here; there is {", ".join(sorted(known))}.')
    signature = content.get("signature_name") or SIGNATURES[0]
    if signature not in SIGNATURES:
        raise _bad(
            f"There is no signature {json.dumps(signature)}; signatures are "
            f"{' and '.join(SIGNATURES)}."
        )
    stage = content.get("stage")
    if stage is not None and type(stage) is not int:
        raise _bad(f'"stage" must be a whole number; got {json.dumps(stage)}.')
    images, columnar = _images(content, most_instances)
    return Asked(images, columnar, stage)


def _json(body, most_instances):
    if not body.strip():
        raise _bad(f"The request is empty; send {_EXAMPLE}.")
    try:
        text = body.decode(json.detect_encoding(body))
    except UnicodeDecodeError:
        text = ""
    if not text or text.startswith("--"):  # as a form with a file begins
        raise _bad(
            "The request is not JSON but the bytes of a file or of a form; send the file in "
            f"base64, {_EXAMPLE}."
        )
    structure = sum(body.count(character) for character in _STRUCTURE)
    if structure > _STRUCTURE_PER_INSTANCE * (most_instances + 4):
        raise _bad(
            f"The request holds too many values: at most {most_instances} instances are allowed, "
            'and each is an encoded image, {"b64": "..."}, not its pixels.'
        )
    try:
        content = json.loads(text, strict=False)  # base64 may have line breaks
    except (ValueError, RecursionError) as error:
        raise _bad(f"The request is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise _bad(f"The request must be an object such as {_EXAMPLE}.")
    return content


def _images(content, most_instances):
    """Encoded images and whether they came as a column."""
    if ("instances" in content) == ("inputs" in content):
        raise _bad('The request must have either "instances" or "inputs".')
    columnar = "inputs" in content
    where = "inputs" if columnar else "instances"
    items = content[where]
    if columnar and isinstance(items, dict) and items.keys() == {INPUT}:
        items, where = items[INPUT], f"inputs.{INPUT}"
    if not isinstance(items, list) or not items:
        raise _bad(f'"{where}" must be a list of one or more {{"b64": "..."}}.')
    if len(items) > most_instances:
        raise _bad(f'"{where}" has {len(items)} images, and at most {most_instances} are allowed.')
    return [_image(item, f"{where}[{index}]") for index, item in enumerate(items)], columnar


def _image(item, where):
    if isinstance(item, dict) and item.keys() == {INPUT}:
        item = item[INPUT]
    if not isinstance(item, dict) or item.keys() != {"b64"} or not isinstance(item["b64"], str):
        raise _bad(f'{where} must be {{"b64": "..."}}, the image file\'s bytes in base64.')
    # As TensorFlow Serving reads it: white space does not count, the padding may be missing.
    text = "".join(item["b64"].split())
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        problem = f"{error}"
        if text.startswith("data:"):
            problem = "leave out 'data:' and all up to the comma"
        elif {"-", "_"} & set(text):
            problem = "it is in the URL-safe alphabet; use the standard one, with + and /"
        raise _bad(f"{where} is not base64: {problem}.") from None


def _bad(sentence):
    return HTTPException(400, sentence)


def decode_safely(contents, max_pixels, apply_orientation=False):
    """Decodes JPEG or PNG bytes as `pit_keras.data.preprocessing.decode` does, within limits.

    A ValueError begins with a verb, so that the image's name can be put before it.
    """
    height, width = _size(contents)
    if height * width > max_pixels or max(height, width) > MOST_PIXELS_OF_A_SIDE:
        raise ValueError(
            f"has {width} x {height} pixels, and this server takes {max_pixels:,} at most, "
            f"{MOST_PIXELS_OF_A_SIDE:,} a side."
        )
    if contents.startswith(_JPEG_START) and contents.count(_JPEG_SCAN) > MOST_SCANS:
        raise ValueError(f"is a JPEG of more than {MOST_SCANS} scans.")
    try:
        return decode(contents, apply_orientation)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(_DAMAGED) from error


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
        raise ValueError(_DAMAGED) from error
    raise ValueError("is not a JPEG or PNG image.")
