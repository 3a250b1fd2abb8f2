import asyncio

import httpx
import pytest
from servers import ADDRESS, b64, connected, received, serving
from tolerances import assert_close

from pit_keras.data.preprocessing import decode
from pit_keras.serving.limits import MOST_CONNECTIONS

CLIENTS = 200


@pytest.fixture(scope="module")
def server(model_folder):
    with serving(model_folder / "model.keras", "--max_queue=4", "--max_batch=2") as server:
        yield server


def test_too_many_at_once_are_refused_and_the_others_answered_rightly(
    server, trained, files, roundings
):
    async def ask_all():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=120) as client:
            contents = [{"instances": [b64(file)]} for file in files]
            return await asyncio.gather(
                *(
                    client.post(f"{ADDRESS}:predict", json=contents[index % len(files)])
                    for index in range(CLIENTS)
                )
            )

    responses = asyncio.run(ask_all())

    expected = trained.logits([decode(file).numpy() for file in files])
    answered = [index for index, response in enumerate(responses) if response.status_code == 200]
    for index in answered:
        (prediction,) = responses[index].json()["predictions"]
        logits = expected[index % len(files)]
        assert_close(prediction["logits"], logits, roundings=roundings, scale=1)
    refused = [response for response in responses if response.status_code != 200]
    assert len(answered) >= 4
    assert refused
    for response in refused:
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.json() == {"error": "The server is busy; try again in a moment."}
    told = server.client.get(f"{ADDRESS}/metadata").json()["statistics"]
    assert told["refused"] == len(refused)
    assert told["largest_batch"] <= 2
    # All places are free again.
    assert server.predict(*files[:4]).status_code == 200


def test_a_request_takes_a_place_for_each_image(server, files):
    assert server.predict(*files[:4]).status_code == 200
    response = server.predict(*files[:5])
    assert response.status_code == 400
    assert "has 5 images, and at most 4 are allowed" in response.json()["error"]


def test_connections_are_bounded(server, files):
    connections = [connected(server) for _ in range(MOST_CONNECTIONS)]
    with connected(server) as one_more:
        answer = received(one_more)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in answer
    for connection in connections:
        connection.close()
    while server.predict(files[0]).status_code == 503:  # until all of it was noticed
        pass
    assert server.predict(files[0]).status_code == 200
