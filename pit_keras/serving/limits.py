"""What a server takes at most, and from whom, so that no client and no web page can use it up."""

import contextlib
import dataclasses
import ipaddress
import urllib.parse

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

BUSY = "The server is busy; try again in a moment."
RETRY_AFTER_SECONDS = 1

# Together they stay below the 1024 open files that a process has by default, even while those that
# are too many are being closed.
MOST_CONNECTIONS = 512
BACKLOG = 128  # connections that wait to be accepted, and how many are at once

ANSWER_SECONDS = 90

_BODY = f'{{"error":"{BUSY}"}}'
_TOO_MANY = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    f"Retry-After: {RETRY_AFTER_SECONDS}\r\nContent-Length: {len(_BODY)}\r\n"
    f"Connection: close\r\n\r\n{_BODY}"
).encode()


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of one server.

    Attributes:
        max_batch: Images that the model sees at once.
        max_queue: Images in the server, from the arrival of a request's head to its answer; a
            request that finds no place is refused.
        max_request_bytes: Size of a request's body.
        max_pixels: Height times width of an image.
        timeout: Seconds that a client has to send a request's head, and again for its body.
    """

    max_batch: int
    max_queue: int
    max_request_bytes: int
    max_pixels: int
    timeout: float


class Places:
    """Places for images in the server. For one thread, that of the event loop.

    Attributes:
        free: How many there are now.
        refused: How often a request found none.
    """

    def __init__(self, count):
        self.free = count
        self.refused = 0

    @contextlib.contextmanager
    def holding_one(self):
        """Holds a place within it; gives a function that takes that many more till the end.

        Raises:
            HTTPException: 503, at the start and of the function, if there are not as many.
        """
        held = 0

        def take(count):
            nonlocal held
            if count > self.free:
                self.refused += 1
                headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
                raise HTTPException(503, BUSY, headers)
            self.free -= count
            held += count

        take(1)
        try:
            yield take
        finally:
            self.free += held


def guarded_protocol(timeout):
    """uvicorn's HTTP/1.1, with the limits that it lacks.

    Beyond `MOST_CONNECTIONS` a connection is answered with 503 and closed. One is cut off when the
    head of a request takes longer than `timeout` seconds from the connection, or the last answer,
    on; and when its body, the work and the sending of the answer take `ANSWER_SECONDS` longer than
    that. The body alone has a limit in `read_body`, which answers; this one is for clients that
    do not read.

    Returns:
        A class for `uvicorn.Config(http=...)`.
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
            # First, for it may begin with the next request, which came early.
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
    """An ASGI application that lets through what was not sent by another site's page.

    A browser says in `Origin` whose page sends a request: it must be the server's own. A name that
    somebody made point to 127.0.0.1 would pass for that; so a server of this machine alone answers
    only to the names that this machine has for itself.

    Args:
        app: The ASGI application behind it.
        host: The address that the server is bound to.
    """

    def __init__(self, app, host):
        self.app = app
        self.local = is_local(host)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            problem = self._problem(Headers(scope=scope))
            if problem is not None:
                await JSONResponse({"error": problem}, 403)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _problem(self, headers):
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.local and not is_local(_name(host)):
            return "This server answers to localhost and 127.0.0.1 only."
        if origin is not None and origin.partition("://")[2] != host:
            return "This server does not answer to pages of other sites."
        return None


def is_local(host):
    """Whether a name or an address is this machine's own, for itself alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _name(host):
    """The name or address in a Host header, without its port."""
    try:
        return urllib.parse.urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
