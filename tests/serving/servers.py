"""Servers in processes of their own, for tests, and requests to them."""

import base64
import contextlib
import io
import json
import pathlib
import re
import socket
import tempfile
import time

import forked
import httpx
from PIL import Image

PROGRAM = pathlib.Path(__file__).parents[2] / "pit_keras" / "__main__.py"
NAME = "pictures"
ADDRESS = f"/v1/models/{NAME}"


class Server:
    """`pit-keras serve` on a free port.

    Attributes:
        process: The `multiprocessing.Process`.
        log: The file of what it prints.
        port, url: Where it serves.
        client: An `httpx.Client` for it.
    """

    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def predict(self, *images, **content):
        """The response to a request with these encoded images."""
        content = {"instances": [b64(image) for image in images]} | content
        return self.client.post(f"{ADDRESS}:predict", json=content)

    def explain(self, *images, **content):
        """The response to a request for where the model looked in these encoded images."""
        content = {"instances": [b64(image) for image in images]} | content
        return self.client.post(f"{ADDRESS}:explain", json=content)


@contextlib.contextmanager
def serving(model, *options):
    """A `Server` of a model; ended with SIGTERM if the test has not done so."""
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "log")
        arguments = ["serve", f"--model={model}", f"--name={NAME}", "--port=0", *options]
        process = forked.start_script(PROGRAM, arguments, log)
        try:
            yield Server(process, _port(process, log), log)
        finally:
            process.terminate()
            process.join()


def _port(process, log):
    while process.is_alive():
        printed = log.read_text() if log.exists() else ""
        served = re.search(r"is served at http://127\.0\.0\.1:(\d+)/", printed)
        if served:
            return int(served[1])
        time.sleep(0.05)
    raise AssertionError(f"The server ended: {log.read_text()}")


def connected(server):
    """A connection to a server, on which nothing was sent."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.settimeout(60)
    return connection


def received(connection):
    """All that comes until the server closes the connection."""
    parts = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def begun(server, contents):
    """A connection with half a request that has its place, and the other half."""
    body = json.dumps({"instances": [b64(contents)]}).encode()
    head = (
        f"POST {ADDRESS}:predict HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    connection = connected(server)
    connection.sendall(head.encode())
    assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(body[:100])
    return connection, body[100:]


def b64(contents):
    """Bytes as a request has them."""
    return {"b64": base64.b64encode(contents).decode()}


def encoded(image, kind="PNG", **options):
    """A uint8 image (H, W, 3) as the bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()
