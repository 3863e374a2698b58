"""Servers in this process that keep every request as the bytes that came, for what is compared to the byte.

Unlike those of `model_server` they know nothing of behaviours but one: a request header `on-<side>: 503` is answered
with that status by the servers of that side, and `on-<side>: reset` with the end of the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.network import BACKEND_PORT

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Seen:
    """One request: its head without the empty line, and all that came behind it (chunks as they were)."""

    head: bytes
    rest: bytes

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode("latin-1")

    @property
    def pairs(self) -> Pairs:
        """Names in lower case and values, in the order in which they came."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]


@dataclass
class Witness:
    """One server. `side` is "local" or "remote"."""

    side: str
    host: str
    seen: list[Seen] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Witness]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), self.host, BACKEND_PORT, backlog=1024)
        try:
            yield self
        finally:
            server.close()

    def answer(self, request: Seen) -> bytes | None:
        """Keep a request and choose the answer; None is none at all."""
        self.seen.append(request)
        match request.values(f"on-{self.side}"):
            case ["503"]:
                return b"HTTP/1.1 503 .\r\ncontent-length: 0\r\n\r\n"
            case ["reset"]:
                return None
            case _:
                body = self.side.encode()
                return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, of requests that have a length or are chunked."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (request := self._next()) is not None:
            answer = self._witness.answer(request)
            if answer is None:
                self._transport.abort()
                return
            self._transport.write(answer)

    def _next(self) -> Seen | None:
        """Take the next whole request off the buffer."""
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        length = _length(head, rest)
        if length is None or len(rest) < length:
            return None
        self._buffer = rest[length:]
        return Seen(head, rest[:length])


def _length(head: bytes, rest: bytes) -> int | None:
    """Say how long the body is; None while that cannot be told. RFC 9112, section 6.3."""
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
        if name == b"transfer-encoding":
            last = rest.find(b"0\r\n") if rest.startswith(b"0\r\n") else rest.find(b"\r\n0\r\n")
            end = rest.find(b"\r\n\r\n", max(last, 0))
            return None if last < 0 or end < 0 else end + 4
    return 0
