import base64
import json

import pytest
from starlette.exceptions import HTTPException

from pit_keras.serving.request_body import parse

ONE = {"b64": base64.b64encode(b"one").decode()}
TWO = {"b64": base64.b64encode(b"two!").decode()}


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
        (b"\xff\xfe\xfd", "is not JSON"),
        (b'{"instances": NaN}', "NaN is not a value of JSON"),
        (b'{"instances": -Infinity}', "-Infinity is not a value"),
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
        (b'{"instances": [{"b64": "aa aa"}]}', r"instances\[0\] is not base64"),
        (b'{"instances": [{"b64": "aa_-"}]}', r"instances\[0\] is not base64"),
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
