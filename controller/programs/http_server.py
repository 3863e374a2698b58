"""Serving HTTP to whoever comes: an application at an address, with bounds on connections, times and sizes.

Most bounds are aiohttp's own: a connection that has sent no whole head of a request within `unused` ends, whether it
says nothing or drips, and so does one on which nothing more is asked; a line or a header has 8190 characters, a request
128 headers; what is sent of a body that nobody reads ends the connection after `unread`. asyncio ends what does not
finish its TLS handshake. What neither has is a bound on connections, in all and of one address, and on the time for an
answer that the client does not read: who writes one that is long does it in `written_within`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from controller.gateway.bootstrap import HostPort


@dataclass(frozen=True, slots=True)
class HttpBounds:
    """What somebody who is not known may have: connections in all and from one address, and seconds for each step."""

    connections: int = 200
    of_an_address: int = 50
    handshake: float = 5.0
    unused: float = 15.0
    unread: float = 1.0
    answer: float = 15.0


_WAITING = 100
"""Connections that the kernel keeps until they are taken."""

STRANGERS = HttpBounds()
"""What an admin address, or one for the reports, gives to whoever comes."""


class _Connections:
    """The connections of one server that are open."""

    def __init__(self, bounds: HttpBounds) -> None:
        self._bounds = bounds
        self._open: dict[asyncio.Transport, str] = {}

    def admits(self, transport: asyncio.Transport) -> bool:
        """Count a new connection, unless there are too many. As many are kept as are counted: looking is cheap."""
        self._open = {one: peer for one, peer in self._open.items() if not one.is_closing()}
        name = transport.get_extra_info("peername")
        peer = str(name[0]) if isinstance(name, tuple) else ""
        of_the_peer = sum(one == peer for one in self._open.values())
        if len(self._open) >= self._bounds.connections or of_the_peer >= self._bounds.of_an_address:
            return False
        self._open[transport] = peer
        return True


class _Gate(asyncio.Protocol):
    """Hands a connection over to aiohttp, or ends it."""

    def __init__(self, connections: _Connections, server: web.Server) -> None:
        self._connections = connections
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        opened = cast(asyncio.Transport, transport)
        if not self._connections.admits(opened):
            opened.abort()
            return
        protocol = self._server()
        opened.set_protocol(protocol)
        protocol.connection_made(opened)


@contextlib.asynccontextmanager
async def http_served(
    app: web.Application,
    address: HostPort,
    shutdown: float,
    tls: ssl.SSLContext | None = None,
    bounds: HttpBounds = STRANGERS,
) -> AsyncIterator[int]:
    """Serve an application (port 0: at any port) and yield the port. Raises OSError when it cannot be listened there.

    In the end requests have `shutdown` seconds to end.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=shutdown,
        keepalive_timeout=bounds.unused,
        lingering_time=bounds.unread,
    )
    await runner.setup()
    listening: asyncio.Server | None = None
    try:
        assert runner.server is not None
        connections, server = _Connections(bounds), runner.server
        listening = await asyncio.get_running_loop().create_server(
            lambda: _Gate(connections, server),
            address.host,
            address.port,
            ssl=tls,
            ssl_handshake_timeout=bounds.handshake if tls else None,
            backlog=1,
        )
        _keep_waiting(listening)
        yield listening.sockets[0].getsockname()[1]
    finally:
        if listening:
            listening.close()
        await runner.cleanup()


@contextlib.asynccontextmanager
async def written_within(seconds: float, request: web.Request) -> AsyncIterator[None]:
    """Write what is written in this block within so many seconds.

    Whoever does not read it is cut off, which raises a ConnectionError.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        if request.transport:
            request.transport.abort()
        raise ConnectionAbortedError("the client does not read") from None


def _keep_waiting(listening: asyncio.Server) -> None:
    """Have the kernel keep as many connections as is usual until they are taken.

    asyncio tries to take as many at once as may wait (`backlog`). While no file is left it says so in the log for each
    of them, and tries as often again for each a second later: tens of thousands of lines a second. So it takes them one
    by one.
    """
    for one in listening.sockets:
        with socket.socket(fileno=os.dup(one.fileno())) as same:
            same.listen(_WAITING)
