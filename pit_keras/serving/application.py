"""The web application: TensorFlow Serving's REST API for one model, and a page to try it on."""

import asyncio
import concurrent.futures
import importlib.resources
import os

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pit_keras.serving.answers import STATUS, VERSION, explanation, metadata, prediction
from pit_keras.serving.batching import Batcher, Work
from pit_keras.serving.limits import Places, SameSiteGuard
from pit_keras.serving.requests import decode_safely, parse, read_body, unzipped

PAGE_TYPES = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
# The page loads nothing but its own style and script, and a picture that the visitor gave it.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

# To an error of ours.
FAILED = JSONResponse({"error": "The server failed; its log says why."}, 500)

_PREDICT = "predict"


class Service:
    """One model behind HTTP, as an ASGI `application`. Making it compiles the model.

    `network` is a `KerasNetwork` or a `TFLiteNetwork`, `name` the model's in the addresses, of
    characters that are safe there, and `host` the address that the server is bound to.
    """

    def __init__(self, network, name, limits, host):
        self.network, self.name, self.limits = network, name, limits
        self.places = Places(limits.max_queue)
        works = {_PREDICT: Work(network.logits, min(limits.max_batch, limits.max_queue))}
        works |= {stage: Work(each.function, 1) for stage, each in network.attention.items()}
        # Everything is compiled before the first request, for the smallest and the largest batch.
        prepared = network.prepare(np.zeros((*network.image_size, 3), np.uint8))
        for work in works.values():
            for count in {1, work.most}:
                work.function([prepared] * count)
        self.batcher = Batcher(works)
        self.decoders = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "decode")
        self.application = Starlette(
            routes=self._routes(),
            middleware=[Middleware(SameSiteGuard, host=host)],
            exception_handlers={HTTPException: self._refused, Exception: lambda *_: FAILED},
        )

    def close(self):
        """Computes what is left, and ends all threads."""
        self.decoders.shutdown()
        self.batcher.close()

    def _routes(self):
        routes = [Route(f"/{file}", self._file) for file in ("", *PAGE_TYPES)]
        model = f"/v1/models/{self.name}"
        for path in (model, f"{model}/versions/{VERSION}"):
            routes += [
                Route(path, lambda _: JSONResponse(STATUS)),
                Route(f"{path}/metadata", lambda _: JSONResponse(metadata(self))),
                Route(f"{path}:predict", self._predict, methods=["POST"]),
                Route(f"{path}:explain", self._explain, methods=["POST"]),
            ]
        return routes

    async def _file(self, request):
        file = request.url.path.strip("/") or "page.html"
        text = importlib.resources.files(__package__).joinpath(file).read_text("utf-8")
        text = text.replace("MODEL_NAME", self.name)
        return Response(text, media_type=PAGE_TYPES[file], headers=PAGE_HEADERS)

    async def _predict(self, request):
        with self.places.holding_one() as take_more:
            asked, _, prepared = await self._prepared(request, take_more)
            logits = await self._computed(_PREDICT, prepared)
        try:
            predictions = [prediction(each, self.network.class_names) for each in logits]
        except FloatingPointError as error:
            raise HTTPException(500, str(error)) from None
        if asked.columnar:
            outputs = {name: [each[name] for each in predictions] for name in predictions[0]}
            return JSONResponse({"outputs": outputs})
        return JSONResponse({"predictions": predictions})

    async def _explain(self, request):
        with self.places.holding_one() as take_more:
            asked, sizes, prepared = await self._prepared(request, take_more, explain=True)
            stage = self._stage(asked.stage)
            maps = [None] * len(sizes)
            if stage is not None:
                maps = await self._computed(stage, prepared)
        explanations = [
            explanation(size, self.network, stage, each)
            for size, each in zip(sizes, maps, strict=True)
        ]
        return JSONResponse({"explanations": explanations})

    def _stage(self, asked):
        """The stage that is asked for, or else the last; None for a model without attention."""
        stages = self.network.attention
        if asked is None:
            return max(stages, default=None)
        if asked not in stages:
            known = f"stages are {', '.join(map(str, stages))}" if stages else "it has no attention"
            raise HTTPException(400, f"{self.name} has no stage {asked}; {known}.")
        return asked

    async def _prepared(self, request, take_more, explain=False):
        """What is asked, the images' sizes, and the images as the model sees them."""
        body = await read_body(request, self.limits)
        encoding = request.headers.get("content-encoding", "").lower()
        body = await self._in_pool(unzipped, body, encoding, self.limits)
        asked = await self._in_pool(parse, body, self.limits.max_queue, explain)
        take_more(len(asked.images) - 1)
        images = await self._in_pool(self._prepare_all, asked.images)
        return asked, *zip(*images, strict=True)

    def _prepare_all(self, images):
        prepared = []
        # One after another: a request with many images leaves the other threads to the others.
        for index, contents in enumerate(images):
            try:
                turns = self.network.apply_orientation
                image = decode_safely(contents, self.limits.max_pixels, turns)
            except ValueError as error:
                raise HTTPException(400, f"Image {index} {error}") from None
            prepared.append((tuple(image.shape[:2]), self.network.prepare(image)))
        return prepared

    async def _computed(self, work, prepared):
        """Results of one kind of work, when all of them are there."""
        futures = [asyncio.wrap_future(self.batcher.submit(work, each)) for each in prepared]
        results = await asyncio.gather(*futures, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    async def _in_pool(self, function, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self.decoders, function, *arguments)

    async def _refused(self, request, error):
        sentence = error.detail
        if error.status_code == 404:
            sentence = f"There is nothing at {request.url.path}; see /v1/models/{self.name}."
        elif error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "")
            sentence = f"{request.url.path} takes {allowed}, not {request.method}."
        return JSONResponse({"error": sentence}, error.status_code, headers=error.headers)
