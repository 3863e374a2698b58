"""One HTTP/1.1 connection, and the connections to one server that are kept alive between requests.

Why not a client library: libraries repeat an idempotent request by themselves when a kept connection turns out to be
closed, which would hide the very failures that are counted; and the load must not cost more than what it measures (this
takes half the CPU of aiohttp's client, enough to saturate an Envoy worker from one core).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.load.answer import Answer, AnswerError, AnswerReader


class Connection(asyncio.Protocol):
    """Carries one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader: AnswerReader | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._began: Callable[[], None] | None = None

    @property
    def open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, began: Callable[[], None] | None = None) -> Answer:
        """Send one encoded request and wait for its answer; `began` is called as the first byte of it arrives.

        Raises AnswerError and OSError.
        """
        if self._transport is None or not self.open:
            raise AnswerError("closed")
        self._reader, self._began = AnswerReader(), began
        self._answer = self._loop.create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._reader = self._answer = self._began = None

    def close(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio.Protocol)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read on; bytes that nobody asked for end the connection (asyncio.Protocol)."""
        if self._reader is None or self._answer is None or self._answer.done():
            self.close()
            return
        if self._began is not None:
            self._began()
            self._began = None
        try:
            answer = self._reader.feed(data)
        except AnswerError as error:
            self._answer.set_exception(error)
            self.close()
            return
        if answer is not None:
            self._answer.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request that waits, if any (asyncio.Protocol)."""
        if self._reader is None or self._answer is None or self._answer.done():
            return
        if exc is not None:
            self._answer.set_exception(AnswerError(type(exc).__name__, self._reader.begun))
            return
        try:
            self._answer.set_result(self._reader.end())
        except AnswerError as error:
            self._answer.set_exception(error)


class Connections:
    """The connections to one server; the one used last is used first."""

    def __init__(self, host: str, port: int, keepalive: bool) -> None:
        self._address = (host, port)
        self._keepalive = keepalive
        self._idle: list[Connection] = []

    async def exchange(self, request: bytes, began: Callable[[], None] | None = None) -> Answer:
        """Send one encoded request, once, on an idle or a new connection; `began` as above.

        Raises AnswerError and OSError.
        """
        connection = await self._connection()
        try:
            answer = await connection.exchange(request, began)
        except BaseException:
            connection.close()
            raise
        if self._keepalive and answer.reusable:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Drop the idle connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(Connection, *self._address)
        return connection
