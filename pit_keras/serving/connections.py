"""Connections on which nothing may take for ever, as a client that sends nothing would."""

from uvicorn.protocols.http.h11_impl import H11Protocol

ANSWER_SECONDS = 90


def protocol_with_deadlines(timeout):
    """uvicorn's HTTP/1.1, with deadlines where it has none.

    A connection is cut off when the head of a request takes longer than `timeout` seconds from the
    connection, or the last answer, on; and when its body, the work and the sending of the answer
    take `ANSWER_SECONDS` longer than that. The body alone has a limit in `request_body`, which
    answers; this one is for clients that do not read.

    Returns:
        A class for `uvicorn.Config(http=...)`.
    """

    class ProtocolWithDeadlines(H11Protocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            self._deadline = None
            self._allow(timeout)

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

    return ProtocolWithDeadlines
