"""The server process: its address, its model, and its end."""

import asyncio
import contextlib
import logging
import os
import pathlib
import re
import signal
import socket

import uvicorn

from pit_keras.errors import ending_signals, handled_signals
from pit_keras.serving.application import Service
from pit_keras.serving.limits import BACKLOG, guarded_protocol
from pit_keras.waits import waiting

# Process managers often kill after ten: a slow client must not hold up the end.
SECONDS_TO_FINISH = 8


def model_name(model, name=None):
    """The model's name in addresses: `name`, or else that of its folder or file."""
    if name is not None:
        if not re.fullmatch(r"[A-Za-z0-9._-]*[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"--name={name} may have letters, digits, '.', '_' and '-' only.")
        return name
    path = pathlib.Path(model).resolve()
    name = path.name if path.is_dir() else path.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def bind(host, port):
    """A socket that listens at an address; connections wait until `run` accepts them.

    `host` is a name or address of this machine; `port` 0 stands for a free one.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise OSError(f"--host={host} is no address of this machine.") from error
    try:
        # It listens at once: a port that is taken is an error before the model is loaded.
        of_both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=of_both)
    except OSError as error:
        cause = os.strerror(error.errno)
        raise OSError(f"--host={host} --port={port} cannot be served at: {cause}.") from error


class _Server(uvicorn.Server):
    """Ctrl-C ends it at once, other signals when it has finished what is in flight."""

    def handle_exit(self, sig, frame):
        super().handle_exit(sig, frame)
        if sig == signal.SIGINT:
            self.force_exit, self.config.timeout_graceful_shutdown = True, 1


def _is_no_cancellation(record):
    """Whether a line of the log is not about a request that the server's end cuts off."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def run(network, name, listener, limits):
    """Serves a model until SIGTERM or SIGHUP, and finishes what is in flight, or until Ctrl-C."""
    host, port = listener.getsockname()[:2]
    with waiting(f"Compiling {name}"):
        service = Service(network, name, limits, host)
    config = uvicorn.Config(
        service.application,
        http=guarded_protocol(limits.timeout),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_level="error",
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
    server = _Server(config)
    # uvicorn handles them only while it serves, and raises them once more at its end.
    with handled_signals(server.handle_exit, ending_signals()), contextlib.closing(service):
        shown = f"[{host}]" if ":" in host else host
        print(f"{name} is served at http://{shown}:{port}/ until Ctrl-C.", flush=True)
        server.run(sockets=[listener])
