import concurrent.futures
import contextlib
import gzip
import json
import socket

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import ExifTags, Image
from servers import ADDRESS, NAME, b64, encoded, serving
from starlette.testclient import TestClient
from tolerances import assert_close

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.data.preprocessing import decode, preprocess_evaluation
from pit_keras.runs.trained_model import TrainedModel
from pit_keras.serving.application import Service
from pit_keras.serving.limits import Limits
from pit_keras.serving.served_networks import KerasNetwork

MOST_BYTES = 1_000_000


@pytest.fixture(scope="module")
def server(model_folder):
    options = [f"--classes={model_folder / 'classes.txt'}", "--max_request_mb=1"]
    with serving(model_folder / "model.keras", *options) as server:
        yield server


@pytest.fixture(scope="module")
def logits(trained, files):
    return trained.logits([decode(contents).numpy() for contents in files])


def test_predictions_are_those_of_the_model(server, trained, files, logits, roundings):
    response = server.predict(*files)
    assert response.status_code == 200
    predictions = response.json()["predictions"]
    assert len(predictions) == len(files)
    probabilities = tf.nn.softmax(logits).numpy()
    for prediction, row, shares in zip(predictions, logits, probabilities, strict=True):
        assert list(prediction) == ["logits", "probabilities", "top_classes", "top_probabilities"]
        assert_close(prediction["logits"], row, roundings=roundings, scale=1)
        assert_close(prediction["probabilities"], shares, roundings=roundings, scale=1)
        best = np.argsort(-shares)[:5]
        assert prediction["top_classes"] == [trained.class_names[index] for index in best]
        top = [prediction["probabilities"][index] for index in best]
        assert prediction["top_probabilities"] == top


def test_columns_are_answered_in_columns(server, files, logits, roundings):
    content = {"inputs": {"image_bytes": [b64(contents) for contents in files[:2]]}}
    response = server.client.post(f"{ADDRESS}/versions/1:predict", json=content)
    outputs = response.json()["outputs"]
    assert set(outputs) == {"logits", "probabilities", "top_classes", "top_probabilities"}
    assert_close(outputs["logits"], logits[:2], roundings=roundings, scale=1)
    assert [len(names) for names in outputs["top_classes"]] == [5, 5]


def test_status_and_metadata_are_in_tensorflow_servings_form(server):
    for path in (ADDRESS, f"{ADDRESS}/versions/1"):
        assert server.client.get(path).json() == {
            "model_version_status": [
                {
                    "version": "1",
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        }
    told = server.client.get(f"{ADDRESS}/metadata").json()
    assert told["model_spec"] == {"name": NAME, "signature_name": "", "version": "1"}
    signatures = told["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "serve_bytes"}
    dimensions = signatures["serve_bytes"]["outputs"]["top_classes"]["tensor_shape"]["dim"]
    assert [dimension["size"] for dimension in dimensions] == ["-1", "5"]
    assert told["model"]["image_size"] == [32, 40]
    assert [stage["grid"] for stage in told["model"]["attention"]] == [[15, 19], [8, 10], [4, 5]]


def test_an_explanation_has_the_attention_and_the_part_that_was_seen(
    server, trained, photographs, roundings
):
    image = photographs[0]  # 427 x 640
    response = server.explain(encoded(image), stage=2)
    (explanation,) = response.json()["explanations"]
    attention = explanation["attention"]
    assert (attention["stage"], attention["block"]) == (2, "stage2_block2")
    maps = pit_keras.attention_maps(trained.model, "stage2_block2")
    weights = np.asarray(maps(preprocess_evaluation(image, trained.data)[None]))
    expected = weights[0, :, 0, 2:].reshape(-1, 8, 10)
    assert_close(attention["heads"], expected, roundings=roundings)
    assert_close(attention["mean"], expected.mean(axis=0), roundings=roundings)
    # 0.9 of the height that 35 x 44 leaves: 427 to 35 rows, 640 to 52 columns, of them 32 and 40.
    assert explanation["image"] == {"height": 427, "width": 640}
    assert explanation["crop"] == pytest.approx(
        {"top": 2 * 427 / 35, "left": 6 * 640 / 52, "height": 32 * 427 / 35, "width": 40 * 640 / 52}
    )
    last = server.explain(encoded(image)).json()["explanations"][0]["attention"]
    assert np.shape(last["heads"])[1:] == (4, 5)
    refused = server.explain(encoded(image), stage=4)
    assert (refused.status_code, refused.json()) == (
        400,
        {"error": "pictures has no stage 4; stages are 1, 2, 3."},
    )


def test_requests_at_the_same_time_are_batched_and_not_mixed_up(server, files, logits, roundings):
    def ask(index):
        return server.predict(files[index % len(files)])

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(ask, range(96)))

    for index, response in enumerate(responses):
        (prediction,) = response.json()["predictions"]
        expected = logits[index % len(files)]
        assert_close(prediction["logits"], expected, roundings=roundings, scale=1)
    statistics = server.client.get(f"{ADDRESS}/metadata").json()["statistics"]
    assert 1 < statistics["largest_batch"] <= 8


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "The request is empty"),
        (b"{", 400, "The request is not JSON"),
        (b'{"instances": [{"b64": "%%%"}]}', 400, "instances[0] is not base64"),
        (json.dumps({"instances": [b64(b"text")]}).encode(), 400, "Image 0 is not a JPEG or PNG"),
        (b" " * (MOST_BYTES + 1), 413, "larger than the 1,000,000 bytes"),
        (b"[" * MOST_BYTES, 400, "too many values"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(server, content, status, words):
    response = server.client.post(f"{ADDRESS}:predict", content=content)
    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert words in response.json()["error"]
    assert server.client.get(ADDRESS).status_code == 200


def test_a_bad_image_is_named_by_its_place(server, files):
    response = server.predict(files[0], files[1][:-100])
    assert response.status_code == 400
    assert response.json() == {"error": "Image 1 is damaged or cut short, so it cannot be decoded."}


def test_a_body_without_a_length_is_cut_off_at_the_limit(server):
    head = (
        f"POST {ADDRESS}:predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode())
        for _ in range(11):  # and more would come
            connection.sendall(b"186a0\r\n" + bytes(100_000) + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_length_that_is_too_large_is_refused_before_anything_is_sent(server):
    head = f"POST {ADDRESS}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000001\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nothing", 404, f"There is nothing at /nothing; see {ADDRESS}."),
        ("POST", "/v1/models/other:predict", 404, f"/v1/models/other:predict; see {ADDRESS}."),
        ("GET", f"{ADDRESS}/versions/2", 404, "There is nothing at"),
        ("GET", f"{ADDRESS}:predict", 405, f"{ADDRESS}:predict takes POST, not GET."),
        ("POST", ADDRESS, 405, "not POST."),
    ],
)
def test_wrong_addresses_and_methods(server, method, path, status, words):
    response = server.client.request(method, path)
    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1234", "Origin": "http://localhost:1234"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Origin": "http://example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Host": "example.com", "Origin": "http://example.com"}, 403),
        ({"Host": "127.0.0.1.example.com"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "[::1"}, 403),
    ],
)
def test_pages_of_other_sites_are_kept_out(server, headers, status):
    for path in ("/", ADDRESS):
        assert server.client.get(path, headers=headers).status_code == status


def test_the_page_may_load_only_what_the_server_has(server):
    response = server.client.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "http://" not in response.text
    assert "https://" not in response.text
    for file in ("page.css", "page.js"):
        assert f'"/{file}"' in response.text
        assert server.client.get(f"/{file}").status_code == 200


def test_what_is_not_http_is_answered_with_400(server):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert server.client.get(ADDRESS).status_code == 200


def test_a_zipped_request_is_unzipped(server, files):
    body = gzip.compress(json.dumps({"instances": [b64(files[0])]}).encode())
    headers = {"Content-Encoding": "GZIP"}
    response = server.client.post(f"{ADDRESS}:predict", content=body, headers=headers)
    assert response.status_code == 200


def test_any_content_type_will_do_as_curl_sends_it(server, files):
    body = json.dumps({"instances": [b64(files[0])]})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = server.client.post(f"{ADDRESS}:predict", content=body, headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("applied", [False, True])
def test_photographs_are_turned_where_the_training_turned_them(photographs, applied):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    contents = encoded(photographs[0], "JPEG", exif=exif)
    data = DataConfig(image_size=(8, 6), apply_orientation=applied)
    model = keras.Sequential(
        [keras.Input((8, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    trained = TrainedModel(model, ("a", "b"), data)
    limits = Limits(max_batch=1, max_queue=2, max_request_bytes=10**6, max_pixels=10**6, timeout=60)
    service = Service(KerasNetwork(trained), NAME, limits, "127.0.0.1")
    with contextlib.closing(service):
        client = TestClient(service.application, base_url="http://127.0.0.1")
        answer = client.post(f"{ADDRESS}:predict", json={"instances": [b64(contents)]}).json()
        facts = client.get(f"{ADDRESS}/metadata").json()
    expected = trained.logits([decode(contents, applied).numpy()])
    np.testing.assert_allclose(answer["predictions"][0]["logits"], expected[0], rtol=1e-5)
    assert facts["model"]["apply_orientation"] == applied
