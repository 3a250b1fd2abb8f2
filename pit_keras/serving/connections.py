"""Connections: only so many, and none on which something may take for ever."""

from uvicorn.protocols.http.h11_impl import H11Protocol

from pit_keras.serving.admission import BUSY, RETRY_AFTER_SECONDS

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


def guarded_protocol(timeout):
    """uvicorn's HTTP/1.1, with the limits that it lacks.

    Beyond `MOST_CONNECTIONS` a connection is answered with 503 and closed. One is cut off when the
    head of a request takes longer than `timeout` seconds from the connection, or the last answer,
    on; and when its body, the work and the sending of the answer take `ANSWER_SECONDS` longer than
    that. The body alone has a limit in `request_body`, which answers; this one is for clients that
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
