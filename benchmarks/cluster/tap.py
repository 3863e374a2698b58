"""A way between Envoy and the xDS server on which can be seen when something passes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from controller.gateway.bootstrap import HostPort
from tests.support.network import unused_port

_CHUNK = 1 << 18
# What a response and its acknowledgement have in them, whatever they are about; other frames of HTTP/2 do not.
_ANYTHING = b"type.googleapis.com/envoy."
_ROUTES = b"/envoy.config.route.v3.RouteConfiguration"


class Tap:
    """Passes TCP connections on and notes the moments (`time.perf_counter`, seconds) of what passes."""

    def __init__(self, there: HostPort) -> None:
        self.address = HostPort("127.0.0.1", unused_port())
        self.sent = self.answered = 0.0
        """When the last part of a response passed, and the last answer of Envoy to one."""
        self.response_bytes = 0
        self._there = there
        self._connections: set[asyncio.Task[None]] = set()
        self._sent: asyncio.Future[float] | None = None
        self._answered: asyncio.Future[float] | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Tap]:
        """Listen; leaving cuts every connection."""
        server = await asyncio.start_server(self._connect, self.address.host, self.address.port)
        try:
            yield self
        finally:
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def next_routes(self) -> tuple[asyncio.Future[float], asyncio.Future[float]]:
        """Watch out for the next response with routes, and for Envoy's answer to it: the moments of both."""
        loop = asyncio.get_running_loop()
        self._sent, self._answered = loop.create_future(), loop.create_future()
        return self._sent, self._answered

    def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._pass_on(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(self._there.host, self._there.port)
            try:
                await asyncio.gather(self._requests(reader, back), self._responses(there, writer))
            finally:
                back.close()
        writer.close()

    async def _responses(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            now = time.perf_counter()
            writer.write(data)
            self.response_bytes += len(data)
            if _ANYTHING in data:
                self.sent = now
            if self._sent and not self._sent.done() and _ROUTES in data:
                self._sent.set_result(now)
            await writer.drain()
        raise ConnectionResetError

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            now = time.perf_counter()
            writer.write(data)
            if _ANYTHING in data:
                self.answered = now
            asked = self._sent and self._sent.done()
            if asked and self._answered and not self._answered.done() and _ROUTES in data:
                self._answered.set_result(now)
            await writer.drain()
        raise ConnectionResetError
