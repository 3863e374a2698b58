"""Run as a program: model servers with a number of places. Standard library only.

``python replicas.py SECONDS PORT REMOTE PLACES HOST...`` serves on each host. A request that finds one of its PLACES
has the first bytes of its answer at once and the rest after SECONDS, as a model streams; one that finds none waits for
its turn. The answer says in `x-on-arrival` whether there was a place: `free`; `full`: on another host; `none`: nowhere.
At REMOTE there is room for everybody.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque

_BODY = b'data: {"token": "first"}\n\n', b'data: {"token": "last"}\n\n'
_HEAD = (
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-on-arrival: {}\r\n"
    f"content-length: {sum(map(len, _BODY))}\r\n\r\n"
)
_HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Places:
    """The places of one server, and who waits for one."""

    def __init__(self, count: int, seconds: float, all_places: list[Places]) -> None:
        self._free = count
        self._all = all_places
        self._seconds = seconds
        self._waiting: deque[Connection] = deque()

    def take(self, connection: Connection) -> None:
        """Begin to serve, now or in turn."""
        on_arrival = "free" if self._free else "full" if any(one._free for one in self._all) else "none"
        connection.head = _HEAD.format(on_arrival).encode()
        if self._free:
            self._begin(connection)
        else:
            self._waiting.append(connection)

    def _begin(self, connection: Connection) -> None:
        self._free -= 1
        connection.write(connection.head + _BODY[0])
        asyncio.get_running_loop().call_later(self._seconds, self._end, connection)

    def _end(self, connection: Connection) -> None:
        self._free += 1
        connection.write(_BODY[1])
        while self._waiting and self._free:
            self._begin(self._waiting.popleft())


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection; requests come one after another."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._buffer = b""
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio.Protocol)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take the request when it is complete (asyncio.Protocol)."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < _length(head):
            return
        self._buffer = b""
        if head.startswith(b"GET /healthz "):
            self._transport.write(_HEALTHY)
        else:
            self._places.take(self)

    def write(self, data: bytes) -> None:
        """Send, if anybody is still there."""
        if not self._transport.is_closing():
            self._transport.write(data)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def serve(seconds: float, port: int, remote: str, count: int, hosts: list[str]) -> None:
    """Serve until the process ends."""
    loop = asyncio.get_running_loop()
    all_places: list[Places] = []
    all_places.extend(Places(count, seconds, all_places) for _ in hosts)
    for host, places in [(remote, Places(sys.maxsize, seconds, [])), *zip(hosts, all_places, strict=True)]:
        await loop.create_server(lambda places=places: Connection(places), host, port, backlog=4096)  # type: ignore[misc]
    await loop.create_future()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5:]))
