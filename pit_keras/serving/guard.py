"""Keeps pages of other sites from using a server through the browser of someone who visits them."""

import ipaddress
import urllib.parse

from starlette.datastructures import Headers
from starlette.responses import JSONResponse


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
