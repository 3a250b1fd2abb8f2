import base64
import gzip
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image
from servers import encoded
from starlette.exceptions import HTTPException

from pit_keras.data.preprocessing import decode
from pit_keras.serving.limits import Limits
from pit_keras.serving.requests import MOST_SCANS, decode_safely, parse, unzipped

ONE = {"b64": base64.b64encode(b"one").decode()}
TWO = {"b64": base64.b64encode(b"two!").decode()}
PIXELS = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
JPEG, PNG = encoded(PIXELS, "JPEG"), encoded(PIXELS, "PNG")


@pytest.mark.parametrize(
    ("content", "columnar"),
    [
        ({"instances": [ONE, TWO]}, False),
        ({"instances": [{"image_bytes": ONE}, TWO]}, False),
        ({"instances": [ONE, TWO], "signature_name": "serving_default"}, False),
        ({"inputs": [ONE, TWO], "signature_name": "serve_bytes"}, True),
        ({"inputs": {"image_bytes": [ONE, TWO]}}, True),
    ],
)
def test_both_forms_of_tensorflow_serving(content, columnar):
    asked = parse(json.dumps(content).encode(), most_instances=2)
    assert (asked.images, asked.columnar, asked.stage) == ([b"one", b"two!"], columnar, None)


@pytest.mark.parametrize("text", ["dHdv\\nIQ==", "dHdv\nIQ==\n", "dHdvIQ", " dHd vIQ=="])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_base64_is_read_as_tensorflow_serving_reads_it(text, encoding):
    body = f'{{"instances": [{{"b64": "{text}"}}], "signature_name": ""}}'.encode(encoding)
    assert parse(body, most_instances=2).images == [b"two!"]


def limits(size):
    return Limits(1, 1, size, 1, 1)


def test_a_zipped_body_is_unzipped_within_its_limit():
    assert unzipped(b"body", "", limits(4)) == unzipped(b"body", "identity", limits(4)) == b"body"
    assert unzipped(gzip.compress(b"body", mtime=0), "gzip", limits(4)) == b"body"
    bomb = gzip.compress(bytes(10**8))
    for body, most in ((gzip.compress(b"body", mtime=0), 3), (bomb, 10**6)):
        with pytest.raises(HTTPException, match=f"larger than the {most:,} bytes") as caught:
            unzipped(body, "gzip", limits(most))
        assert caught.value.status_code == 413


@pytest.mark.parametrize(
    ("body", "encoding", "status", "words"),
    [
        (b"body", "br", 415, "Content-Encoding is br; use gzip or none"),
        (b"body", "gzip", 400, "is not gzip, as its Content-Encoding says"),
        (gzip.compress(b"body", mtime=0)[:-9], "gzip", 400, "is not one whole gzip stream"),
        (gzip.compress(b"", mtime=0) * 2, "gzip", 400, "is not one whole gzip stream"),
    ],
)
def test_what_is_not_zipped_as_it_says_is_refused(body, encoding, status, words):
    with pytest.raises(HTTPException, match=words) as caught:
        unzipped(body, encoding, limits(100))
    assert caught.value.status_code == status


def test_a_stage_is_for_explanations():
    body = json.dumps({"instances": [ONE], "stage": 2}).encode()
    assert parse(body, 2, explain=True).stage == 2
    with pytest.raises(HTTPException, match='There is no "stage" here'):
        parse(body, 2)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"{", "is not JSON"),
        (b'{"instances": [}', "is not JSON"),
        (b"\xff\xfe\xfd", "bytes of a file"),
        (JPEG, 'bytes of a file or of a form; send the file in base64, {"instances"'),
        (b"--x\r\nContent-Disposition: form-data", "bytes of a file or of a form"),
        (b'{"instances": NaN}', '"instances" must be a list'),
        (b'{"instances": 1, "signature_name": -Infinity}', "no signature -Infinity"),
        (b'{"instances": 1' + b"0" * 5000 + b"}", "is not JSON"),
        (b"[1]", "must be an object"),
        (b'"text"', "must be an object"),
        (b"null", "must be an object"),
        (b"{}", 'either "instances" or "inputs"'),
        (b'{"instances": [], "inputs": []}', 'either "instances" or "inputs"'),
        (b'{"instances": []}', '"instances" must be a list of one or more'),
        (b'{"instances": {"b64": ""}}', '"instances" must be a list'),
        (b'{"instances": null}', '"instances" must be a list'),
        (b'{"inputs": {"b64": ""}}', '"inputs" must be a list'),
        (b'{"inputs": {"image_bytes": 3}}', '"inputs.image_bytes" must be a list'),
        (b'{"inputs": {"other": []}}', '"inputs" must be a list'),
        (b'{"instances": ["abcd"]}', r"instances\[0\] must be"),
        (b'{"instances": [{"b64": 3}]}', r"instances\[0\] must be"),
        (b'{"instances": [{"b64": "", "x": 1}]}', r"instances\[0\] must be"),
        (b'{"instances": [{"b64": "aaaa"}, 7]}', r"instances\[1\] must be"),
        (b'{"instances": [{"b64": "a"}]}', r"instances\[0\] is not base64"),
        (b'{"instances": [{"b64": "aa_-"}]}', "it is in the URL-safe alphabet; use the standard"),
        (
            b'{"instances": [{"b64": "data:image/png;base64,aaaa"}]}',
            "leave out 'data:' and all up to the comma",
        ),
        ('{"instances": [{"b64": "ä"}]}'.encode(), r"instances\[0\] is not base64"),
        (b'{"instances": [1, 2, 3]}', "has 3 images, and at most 2"),
        (b'{"instances": [[[0, 0, 0], [0, 0, 0]]]}' + b"," * 50, "not its pixels"),
        (b"[" * 100_000, "too many values"),
        (b'{"instances": 1, "signature_name": "other"}', 'no signature "other"'),
        (b'{"instances": 1, "signature_name": ["serve_bytes"]}', "no signature"),
        (b'{"instances": 1, "extra": 1}', 'There is no "extra" here'),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(body, words):
    with pytest.raises(HTTPException, match=words) as caught:
        parse(body, most_instances=2)
    assert caught.value.status_code == 400


@pytest.mark.parametrize("stage", ['"1"', "1.0", "true", "[1]"])
def test_a_stage_is_a_whole_number(stage):
    body = f'{{"instances": [{json.dumps(ONE)}], "stage": {stage}}}'.encode()
    with pytest.raises(HTTPException, match='"stage" must be a whole number'):
        parse(body, 2, explain=True)


def test_deep_nesting_is_no_end_of_the_server():
    with pytest.raises(HTTPException, match="is not JSON"):
        parse(b'{"instances": ' + b"[" * 100_000, most_instances=100_000)


def png_of_size(width, height):
    """A PNG's header, that promises so much, and nothing in it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return PNG[:8] + chunk + PNG[33:]


@pytest.mark.parametrize("contents", [JPEG, PNG, encoded(PIXELS, "JPEG", progressive=True)])
def test_images_are_decoded_as_everywhere(contents):
    decoded = decode_safely(contents, max_pixels=600)
    np.testing.assert_array_equal(decoded, decode(contents))


@pytest.mark.parametrize("applied", [False, True])
def test_a_photograph_is_turned_if_that_is_asked_for(applied):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    contents = encoded(PIXELS, "JPEG", exif=exif)
    decoded = decode_safely(contents, 600, applied)
    np.testing.assert_array_equal(decoded, decode(contents, applied))
    assert (decoded.shape == PIXELS.shape) != applied


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
    with pytest.raises(ValueError, match="at most, 65,535 a side"):
        decode_safely(png_of_size(70_000, 1), max_pixels=100_000)
