"""Latency of `pit-keras serve` by the number of concurrent clients.

    pip install -e .[serve] httpx
    python benchmarks/serving_latency.py --output=results/serving_latency.csv

The server runs in a process of its own with a model of random weights. Each client has a connection
and sends one small JPEG after the other, each as soon as the one before is answered; one that is
refused with 503 waits a second, as it is told. The clients share the machine with the server. The
CSV holds, for each number of clients, answers per second, the median and the 95th percentile of the
answers' latency, their ratio, the share of the requests that was refused, and the mean size of the
batches. Whether all answers are right is checked too.
"""

import asyncio
import base64
import contextlib
import io
import logging
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import httpx
import numpy as np
from absl import app, flags
from csv_rows import write_rows
from PIL import Image

import pit_keras
from pit_keras.export.agreement import real_images

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "pit_s", "A model of create_model.")
flags.DEFINE_list("clients", ["1", "2", "4", "8", "16", "64"], "Numbers of clients.")
flags.DEFINE_float("seconds", 20.0, "How long each number of clients asks.", lower_bound=1.0)
flags.DEFINE_string("output", "results/serving_latency.csv", "The CSV to write.")

PATH = "/v1/models/model"


def main(_):
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of each request
    requests = [request_of(image) for image in real_images()]
    rows = []
    with serving() as url:
        expected = [httpx.post(url + f"{PATH}:predict", json=each).json() for each in requests]
        for count in map(int, FLAGS.clients):
            batches = batches_so_far(url)
            began = time.perf_counter()
            latencies, refused = asyncio.run(ask_all(url, count, requests, expected))
            seconds = time.perf_counter() - began
            batches = batches_so_far(url) - batches
            rows.append(row_of(count, latencies, refused, seconds, batches))
            print(*(f"{key}={value}" for key, value in rows[-1].items()), sep="  ", flush=True)
    write_rows(rows, pathlib.Path(FLAGS.output))


def request_of(image):
    """The content of a request with an image as a JPEG of at most 256 pixels a side."""
    small, file = Image.fromarray(image), io.BytesIO()
    small.thumbnail((256, 256))
    small.save(file, "JPEG")
    return {"instances": [{"b64": base64.b64encode(file.getvalue()).decode()}]}


@contextlib.contextmanager
def serving():
    """A server; gives its URL, and ends it."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.keras"
        pit_keras.create_model(FLAGS.model).save(file)
        command = [sys.executable, "-m", "pit_keras", "serve", f"--model={file}", "--port=0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield re.search(r"http://[^/]+", process.stdout.readline())[0]
            finally:
                process.terminate()


def batches_so_far(url):
    return httpx.get(f"{url}{PATH}/metadata").json()["statistics"]["batches"]


async def ask_all(url, count, requests, expected):
    """Latencies in seconds of all that was answered, and how many requests were refused."""
    latencies, refused = [], 0

    async def client(number):
        nonlocal refused
        asked = number
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:
            while time.perf_counter() < end:
                asked += 1
                which = asked % len(requests)
                began = time.perf_counter()
                response = await http.post(f"{PATH}:predict", json=requests[which])
                if response.status_code == 503:
                    refused += 1
                    await asyncio.sleep(float(response.headers["retry-after"]))
                    continue
                latencies.append(time.perf_counter() - began)
                check(response.raise_for_status().json(), expected[which])

    end = time.perf_counter() + FLAGS.seconds
    await asyncio.gather(*(client(number) for number in range(count)))
    return latencies, refused


def check(answer, expected):
    """Whether an answer has the logits of the same image alone."""
    logits = [each["predictions"][0]["logits"] for each in (answer, expected)]
    np.testing.assert_allclose(*logits, atol=1e-4)


def row_of(clients, latencies, refused, seconds, batches):
    median, most = np.percentile(latencies, (50, 95))
    return {
        "model": FLAGS.model,
        "clients": clients,
        "answers_per_second": round(len(latencies) / seconds, 1),
        "median_ms": round(1000 * median, 1),
        "p95_ms": round(1000 * most, 1),
        "p95_over_median": round(most / median, 2),
        "refused": round(refused / (refused + len(latencies)), 3),
        "mean_batch": round(len(latencies) / batches, 2),
    }


if __name__ == "__main__":
    app.run(main)
