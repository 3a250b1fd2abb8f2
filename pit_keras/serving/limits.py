"""What a server takes at most, and from whom, so that no client and no web page can use it up."""

import contextlib
import ipaddress
import urllib.parse
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

BUSY = "The server is busy; try again in a moment."
RETRY_AFTER_SECONDS = 1

# Together below the 1024 open files that a process has by default.
MOST_CONNECTIONS = 512
BACKLOG = 128  # connections that wait to be accepted, and that are accepted at once

ANSWER_SECONDS = 90

_BODY = f'{{"error":"{BUSY}"}}'
_TOO_MANY = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    f"Retry-After: {RETRY_AFTER_SECONDS}\r\nContent-Length: {len(_BODY)}\r\n"
    f"Connection: close\r\n\r\n{_BODY}"
).encode()


class Limits(NamedTuple):
    """Bounds of one server."""

    max_batch: int  # images that the model sees at once
    max_queue: int  # images in the server, from the arrival of a request's head to its answer
    max_request_bytes: int
    max_pixels: int  # height times width of an image
    timeout: float  # seconds for a request's head to arrive, and again for its body


class Places:
    """Places for images in the server, and how often none was free. For the event loop only."""

    def __init__(self, count):
        self.free = count
        self.refused = 0

    @contextlib.contextmanager
    def holding_one(self):
        """Holds a place within it; gives a function that takes that many more until the end.

        Both raise an HTTPException, 503, if there are not as many places.
        """
        held = 0

        def take(count):
            nonlocal held
            if count > self.free:
                self.refused += 1
                raise HTTPException(503, BUSY, {"Retry-After": str(RETRY_AFTER_SECONDS)})
            self.free -= count
            held += count

        take(1)
        try:
            yield take
        finally:
            self.free += held


def guarded_protocol(timeout):
    """A class for `uvicorn.Config(http=...)`: HTTP/1.1 with the limits that uvicorn lacks.

    Beyond `MOST_CONNECTIONS` a connection is answered with 503 and closed. A connection is cut off
    if a request's head takes longer than `timeout` seconds from the connection, or the last answer,
    on; or if body, work and answer take longer than `timeout` + `ANSWER_SECONDS`. `read_body` has a
    limit of its own, which answers; this one is for clients that do not read.
    """

    class GuardedProtocol(H11Protocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            self._deadline = None
            self._allow(timeout)
            if len(self.connections) > MOST_CONNECTIONS:
                transport.write(_TOO_MANY)
                transport.close()

        def handle_events(self):
            cycle = self.cycle
            super().handle_events()
            if self.cycle is not cycle:  # a request's head is complete
                self._allow(timeout + ANSWER_SECONDS)

        def on_response_complete(self):
            # First, since super() may begin with the next request, which came early.
            self._allow(timeout)
            super().on_response_complete()

        def connection_lost(self, error):
            self._deadline.cancel()
            super().connection_lost(error)

        def _allow(self, seconds):
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

    return GuardedProtocol


class SameSiteGuard:
    """An ASGI middleware that refuses requests of other sites' pages.

    A browser says in `Origin` whose page sends a request: it must be the server's own. A foreign
    name that points to 127.0.0.1 would pass; so a server bound to a local `host` answers only to
    local names.
    """

    def __init__(self, app, host):
        self.app = app
        self.local = _is_local(f"[{host}]" if ":" in host else host)

    async def __call__(self, scope, receive, send):
        problem = self._problem(Headers(scope=scope)) if scope["type"] == "http" else None
        answer = JSONResponse({"error": problem}, 403) if problem else self.app
        await answer(scope, receive, send)

    def _problem(self, headers):
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.local and not _is_local(host):
            return "This server answers to localhost and 127.0.0.1 only."
        if origin is not None and origin.partition("://")[2] != host:
            return "This server does not answer to pages of other sites."
        return None


def _is_local(host):
    """Whether a name or an address, maybe with a port, reaches this machine only from itself."""
    try:
        name = urllib.parse.urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
