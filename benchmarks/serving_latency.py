"""Latency of `pit-keras serve` by the number of concurrent clients.

    pip install -e .[serve] httpx
    python benchmarks/serving_latency.py

The server is a process of its own with random weights, or runs at --url already, with --name=model.
Each client sends small JPEGs, one after the other; one that is refused with 503 waits a second. All
answers are checked. The CSV has answers per second, the median and the 95th percentile of their
latency, the share of requests that was refused, and the mean size of the batches.
"""

import asyncio
import base64
import contextlib
import io
import logging
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from command import new_model, parse, write_rows

PATH = "/v1/models/model"


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"image_size": 32, "clients": (2,), "seconds": 0.1},
        url="",
        model="pit_s",
        image_size=224,
        clients=(1, 2, 4, 8, 16, 64),
        seconds=20.0,
        output="results/serving_latency.csv",
    )
    import httpx
    import numpy as np

    from pit_keras.export.agreement import real_images

    logging.getLogger("httpx").setLevel(logging.WARNING)
    requests, rows = [request_of(image) for image in real_images()], []
    with serving(options) as url, httpx.Client(base_url=url, timeout=120) as http:
        expected = [logits_of(http.post(f"{PATH}:predict", json=each)) for each in requests]

        def batches():
            return http.get(f"{PATH}/metadata").json()["statistics"]["batches"]

        for clients in options.clients:
            before, began = batches(), time.perf_counter()
            asked = ask_all(url, clients, requests, expected, options.seconds)
            latencies, refused = asyncio.run(asked)
            seconds, answers = time.perf_counter() - began, len(latencies)
            median, most = np.percentile(latencies, (50, 95))
            rows.append(
                {
                    "model": options.model,
                    "clients": clients,
                    "answers_per_second": round(answers / seconds, 1),
                    "median_ms": round(1000 * median, 1),
                    "p95_ms": round(1000 * most, 1),
                    "p95_over_median": round(most / median, 2),
                    "refused": round(refused / (refused + answers), 3),
                    "mean_batch": round(answers / (batches() - before), 2),
                }
            )
    write_rows(rows, options.output)


def request_of(image):
    """A request with an image as a JPEG of at most 256 pixels a side."""
    from PIL import Image

    small, file = Image.fromarray(image), io.BytesIO()
    small.thumbnail((256, 256))
    small.save(file, "JPEG")
    return {"instances": [{"b64": base64.b64encode(file.getvalue()).decode()}]}


def logits_of(response):
    return response.raise_for_status().json()["predictions"][0]["logits"]


@contextlib.contextmanager
def serving(options):
    """Runs a server, if `--url` does not name one; gives its URL."""
    if options.url:
        yield options.url
        return
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.keras"
        new_model(options.model, options).save(file)
        command = [sys.executable, "-m", "pit_keras", "serve", f"--model={file}", "--port=0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield re.search(r"http://[^/]+", process.stdout.readline())[0]
            finally:
                process.terminate()


async def ask_all(url, clients, requests, expected, seconds):
    """Seconds of each answer, and the number of refusals."""
    import httpx
    import numpy as np

    latencies, refusals, start = [], [], time.perf_counter()

    async def client(number):
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:
            answered = False  # once at least, however few the seconds
            while not answered or time.perf_counter() < start + seconds:
                number += 1
                which = number % len(requests)
                began = time.perf_counter()
                response = await http.post(f"{PATH}:predict", json=requests[which])
                if response.status_code == 503:
                    refusals.append(number)
                    await asyncio.sleep(float(response.headers["retry-after"]))
                    continue
                answered = True
                latencies.append(time.perf_counter() - began)
                np.testing.assert_allclose(logits_of(response), expected[which], atol=1e-4)

    await asyncio.gather(*map(client, range(clients)))
    return latencies, len(refusals)


if __name__ == "__main__":
    main()
