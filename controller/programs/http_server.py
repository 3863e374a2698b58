"""Serving HTTP to whoever comes: an application at an address, with bounds on connections, times and sizes.

Most bounds are aiohttp's own: a connection that has sent no whole head of a request within `unused` ends, whether it
says nothing or drips, and so does one on which nothing more is asked; a line or a header has 8190 characters, a request
128 headers; what is sent of a body that nobody reads ends the connection after `unread`. asyncio ends what does not
finish its TLS handshake. What neither has is a bound on connections, in all and of one address: above it
another one ends for the one that comes. And none on the time for an answer that the client does not read: who writes
one that is long does it in `written_within`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
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


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class _Connection:
    peer: str
    protocol: asyncio.BaseProtocol
    answering: bool = False


class _Connections:
    """The connections of one server that are open, those in front on which nothing happened for the longest.

    There is always room for one more: another one ends for it. It is one of the newcomer's address if that has its
    part, or the most of all then; otherwise one of the address that has the most. So whoever holds many loses its own,
    and a probe or a scrape that comes is answered. Of those of an address it is the one on which nobody waits for an
    answer, for the longest; if there is none, the one whose answer takes the longest.
    """

    def __init__(self, bounds: HttpBounds) -> None:
        self._bounds = bounds
        self._open: dict[asyncio.Transport, _Connection] = {}

    def take(self, transport: asyncio.Transport, server: web.Server) -> None:
        """Count a new connection, end another one if there are too many, and hand it over to aiohttp."""
        # Also one that ends and has something to send still is open. As many are kept as are counted: looking is cheap.
        alive = frozenset(server.connections)
        self._open = {one: known for one, known in self._open.items() if known.protocol in alive}
        name = transport.get_extra_info("peername")
        peer = str(name[0]) if isinstance(name, tuple) else ""
        counts = Counter((peer, *(one.peer for one in self._open.values())))
        if counts[peer] > self._bounds.of_an_address:
            self._end_one(counts, [one for one, known in self._open.items() if known.peer == peer])
        elif counts.total() > self._bounds.connections:
            self._end_one(counts, self._open)
        protocol = server()
        self._open[transport] = _Connection(peer, protocol)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    @web.middleware
    async def answering(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note on which connection an answer is waited for."""
        transport = request.transport
        known = self._open.pop(transport, None) if transport else None
        if transport is None or known is None:
            # It ended meanwhile.
            return await handler(request)
        self._open[transport] = known
        known.answering = True
        try:
            return await handler(request)
        finally:
            known.answering = False
            if self._open.pop(transport, None):
                self._open[transport] = known

    def _end_one(self, counts: Mapping[str, int], those: Iterable[asyncio.Transport]) -> None:
        # Of several that are the most, `max` takes the first.
        one = max(those, key=lambda one: (counts[self._open[one].peer], not self._open[one].answering))
        del self._open[one]
        one.abort()


class _Gate(asyncio.Protocol):
    """Hands a connection over as soon as it is there."""

    def __init__(self, connections: _Connections, server: web.Server) -> None:
        self._connections = connections
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connections.take(cast(asyncio.Transport, transport), self._server)


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
    connections = _Connections(bounds)
    app.middlewares.insert(0, connections.answering)
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=shutdown,
        keepalive_timeout=bounds.unused,
        lingering_time=bounds.unread,
        # Who is gone waits for no answer: otherwise all would go on that were asked for on connections that ended.
        handler_cancellation=True,
    )
    await runner.setup()
    listening: asyncio.Server | None = None
    try:
        assert runner.server is not None
        server = runner.server
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
