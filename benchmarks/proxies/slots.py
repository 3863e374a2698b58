"""Load in slots: for a short time, a number of clients on kept connections that each wait for their answer.

Why not `tests.support.load.closed_loop`: it opens its connections anew for each load, and it takes as much CPU per
request as an Envoy does, so the Envoy would wait for its clients and wake up for every single request.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from tests.support.load.answer import AnswerError, AnswerReader

_STALLED_AFTER = 5.0
"""Seconds without any answer after which what is in flight has failed."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What came of the load of one slot."""

    requests: int
    """All of them, those that failed included."""
    remote: int
    """Those that the remote backend answered."""
    failed: int
    cpu_seconds: float
    """What the proxy used."""
    seconds: float

    @property
    def cpu_per_request(self) -> float:
        """Seconds."""
        return self.cpu_seconds / self.requests

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


class Outcome(Enum):
    """What the bytes that arrived for one request are."""

    INCOMPLETE = "incomplete"
    LOCAL = "local"
    REMOTE = "remote"
    FAILED = "failed"


def outcome_of(data: bytes) -> Outcome:
    """Judge what arrived so far; nothing at all means that the connection is over.

    Good answers are known by their first and last bytes, which is ten times cheaper than to read them.
    """
    if data.startswith(b"HTTP/1.1 200 "):
        if data.endswith(b"\r\n\r\nlocal"):
            return Outcome.LOCAL
        if data.endswith(b"\r\n\r\nremote"):
            return Outcome.REMOTE
    try:
        complete = AnswerReader().feed(data) if data else True
    except AnswerError:
        complete = True
    return Outcome.FAILED if complete else Outcome.INCOMPLETE


class Clients:
    """A number of clients of one server, connected for as long as they are used. Everything here blocks.

    With `tls` they speak it.
    """

    def __init__(self, address: tuple[str, int], request: bytes, count: int, tls: ssl.SSLContext | None = None) -> None:
        self._address = address
        self._tls = tls
        self._request = request
        self._epoll = select.epoll()
        self._connections: dict[int, socket.socket] = {}
        for _ in range(count):
            self._connect()

    def slot(self, seconds: float, cpu_seconds: Callable[[], float]) -> Slot:
        """Send requests for so long, then wait for what is in flight. `cpu_seconds` reads the clock of the proxy.

        Raises OSError when the server is gone.
        """
        outcomes = dict.fromkeys(Outcome, 0)
        cpu, begin = cpu_seconds(), time.monotonic()
        # What arrived of the answer that each connection waits for.
        waiting = dict.fromkeys(self._send(self._connections), b"")
        while waiting:
            ready = self._epoll.poll(_STALLED_AFTER)
            if not ready:
                outcomes[Outcome.FAILED] += len(waiting)
                self._replace(waiting)
                break
            done = []
            for number, _ in ready:
                data = waiting.pop(number, b"") + self._receive(number)
                outcome = outcome_of(data)
                if outcome is Outcome.INCOMPLETE:
                    waiting[number] = data
                    continue
                outcomes[outcome] += 1
                done.extend(self._replace([number]) if outcome is Outcome.FAILED else [number])
            if time.monotonic() < begin + seconds:
                waiting.update(dict.fromkeys(self._send(done), b""))
        seconds, cpu = time.monotonic() - begin, cpu_seconds() - cpu
        return Slot(sum(outcomes.values()), outcomes[Outcome.REMOTE], outcomes[Outcome.FAILED], cpu, seconds)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()
        self._epoll.close()

    def _connect(self) -> int:
        connection = socket.create_connection(self._address, timeout=_STALLED_AFTER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            connection = self._tls.wrap_socket(connection)
        self._epoll.register(connection, select.EPOLLIN)
        self._connections[connection.fileno()] = connection
        return connection.fileno()

    def _replace(self, numbers: Iterable[int]) -> list[int]:
        numbers = tuple(numbers)
        for number in numbers:
            self._connections.pop(number).close()
        return [self._connect() for _ in numbers]

    def _send(self, numbers: Iterable[int]) -> list[int]:
        numbers = list(numbers)
        for number in numbers:
            self._connections[number].sendall(self._request)
        return numbers

    def _receive(self, number: int) -> bytes:
        """Return what arrived, nothing when the connection is over."""
        connection = self._connections[number]
        try:
            data = connection.recv(65536)
            # What TLS has read already, no poll tells of.
            while isinstance(connection, ssl.SSLSocket) and connection.pending():
                data += connection.recv(65536)
            return data
        except OSError:
            return b""
