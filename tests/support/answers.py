"""A server of HTTP that answers as it is told, well or badly, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from tests.support.connections import accepting
from tests.support.network import unused_port

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Answers:
    """Answers each request by `behaviour`, which may be replaced; `asked` are the requests, head and body."""

    behaviour: Behaviour
    asked: list[bytes] = field(default_factory=list)
    connections: int = 0
    ended: int = 0
    """Connections that the client ended before they were answered."""
    port: int = field(default_factory=unused_port)

    @contextlib.asynccontextmanager
    async def listening(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Answers]:
        """Listen while the block runs."""
        async with accepting(self._serve, host, self.port, tls):
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while request := await self._request(reader):
                self.asked.append(request)
                await self.behaviour(writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            self.ended += 1
        finally:
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        sizes = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return head + (await reader.readexactly(int(sizes[0])) if sizes else b"")


def saying(body: bytes | str, status: int = 200, *headers: str) -> Behaviour:
    """Answer with a body, as one does."""
    data = body.encode() if isinstance(body, str) else body
    head = "\r\n".join([f"HTTP/1.1 {status} .", f"content-length: {len(data)}", *headers])

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + b"\r\n\r\n" + data)

    return behave


def bytes_of(raw: bytes, *, then_close: bool = True) -> Behaviour:
    """Write these bytes, whatever they are, and end the connection or keep silent."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if then_close:
            writer.close()
            raise ConnectionResetError
        await silent(writer)

    return behave


async def silent(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


def endless(piece: bytes) -> Behaviour:
    """Begin to answer, and write the same for ever, as fast as the client reads."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 .\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()

    return behave


def dripping(piece: bytes) -> Behaviour:
    """Begin to answer, and write the same for ever, now and then."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 .\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0.01)

    return behave
