"""The server process: its address, its model, and its end."""

import pathlib
import re
import signal
import socket

import uvicorn

from pit_keras.serving.application import Service
from pit_keras.serving.limits import BACKLOG, guarded_protocol

# Who stops a server often kills it after ten: a client that is slow to send must not hold it.
SECONDS_TO_FINISH = 8


def model_name(model, name=None):
    """What a model is called in addresses: `name`, or else what its folder or file is called.

    Args:
        model: Path of the run folder or file.
        name: What the user wants, or None.

    Raises:
        ValueError: If the name has other characters than letters, digits and `._-`.
    """
    if name is not None:
        if not re.fullmatch(r"[A-Za-z0-9._-]*[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"--name={name} may have letters, digits, '.', '_' and '-' only.")
        return name
    path = pathlib.Path(model).resolve()
    name = path.name if path.is_dir() else path.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def bind(host, port):
    """A socket that listens at an address; connections wait until `run` accepts them.

    Args:
        host: Name or address of this machine.
        port: Number; 0 for one that is free.

    Raises:
        OSError: If the address is not this machine's, or the port is taken or not allowed.
    """
    where = f"--host={host} --port={port}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise OSError(f"--host={host} is no address of this machine.") from error
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Before the model is loaded: a port that is taken is told at once.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(f"{where} cannot be served at: {error.strerror}.") from error
    return listener


def run(network, name, listener, limits):
    """Serves a model until SIGINT or SIGTERM; then finishes what is in flight.

    Prints the address when the model is ready.

    Args:
        network: A `KerasNetwork` or `TFLiteNetwork`.
        name: What the model is called in the addresses.
        listener: The socket, of `bind`.
        limits: The `Limits`.
    """
    host, port = listener.getsockname()[:2]
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
    server = uvicorn.Server(config)

    def end(number, frame):
        server.should_exit = True

    # uvicorn handles them while it serves. This is for just before, and for just after: it raises
    # them once more for who called it, and for us all is done.
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        shown = f"[{host}]" if ":" in host else host
        print(f"{name} is served at http://{shown}:{port}/ until Ctrl-C.", flush=True)
        server.run(sockets=[listener])
    finally:
        service.close()
        for number, handler in before.items():
            signal.signal(number, handler)
