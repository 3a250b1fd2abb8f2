"""What a server takes at most, so that no client can use it up."""

import dataclasses


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

    max_batch: int = 8
    max_queue: int = 32
    max_request_bytes: int = 16_000_000
    max_pixels: int = 50_000_000
    timeout: float = 30.0
