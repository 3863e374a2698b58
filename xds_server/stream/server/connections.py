"""Room for others where one address opens connections without end: gRPC counts them in all, and not by address.

So the sockets of this process are looked at from outside of gRPC: whose they are, and whether a stream is on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from xds_server.stream.admission import host_of, usual_form

log = logging.getLogger(__name__)

_FILES = Path("/proc/self/fd")
_SHARE = 4
"""An address may have one of so many of all connections without a stream, once half of all are taken."""
_LOOKS_EVERY, _SAID_EVERY = 1.0, 60.0


class Peer(NamedTuple):
    """Where a connection comes from."""

    host: str
    port: int

    @classmethod
    def of(cls, peer: str) -> Peer:
        """Read it as gRPC writes it (`ipv4:10.0.0.1:4711`); there is no host for a socket file."""
        port = peer.rpartition(":")[2]
        return cls(host_of(peer), int(port) if port.isdecimal() else 0)

    @classmethod
    def at(cls, host: str, port: int, *_more: int) -> Peer:
        """Read it as a socket tells it: some addresses of IPv6 have two spellings, and a wrong one ends a stream."""
        return cls(usual_form(host), port)


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """How many connections there may be at a port of this process."""

    port: int
    most: int

    @property
    def of_an_address(self) -> int:
        """How many of one address may have no stream."""
        return max(self.most // _SHARE, 1)

    def surplus(self, open_from: Collection[Peer], used: Collection[Peer]) -> frozenset[Peer]:
        """Return which connections are to end; those that are `used` have a stream. Pure."""
        if 2 * len(open_from) <= self.most:
            return frozenset()
        unused: dict[str, list[Peer]] = defaultdict(list)
        for peer in open_from:
            if peer.host and peer not in used:
                unused[peer.host].append(peer)
        return frozenset(peer for peers in unused.values() for peer in peers[self.of_an_address :])


async def keep_room(bounds: ConnectionBounds, used: Callable[[], Collection[Peer]]) -> None:
    """End the connections that an address has too many of, each second, until cancelled.

    `used` says on which there is a stream. What has begun between two looks may be ended before its first stream: who
    means well, and has an address with somebody who does not, comes again.
    """
    clock, says_next = asyncio.get_running_loop().time, -math.inf
    while True:
        await asyncio.sleep(_LOOKS_EVERY)
        # There may be thousands; each is some system calls.
        if len(await asyncio.to_thread(_names)) * 2 <= bounds.most:
            continue
        open_from = await asyncio.to_thread(lambda: {peer for peer, _ in _connections(bounds.port)})
        surplus = bounds.surplus(open_from, frozenset(used()))
        if surplus:
            await asyncio.to_thread(_end, bounds.port, surplus)
        if surplus and clock() >= says_next:
            says_next = clock() + _SAID_EVERY
            hosts = sorted({peer.host for peer in surplus})
            log.warning("connections ended: too many of one address have no stream", extra={"addresses": hosts[:5]})


def _end(port: int, surplus: frozenset[Peer]) -> None:
    for peer, connection in _connections(port):
        if peer in surplus:
            with contextlib.suppress(OSError):  # It may have ended by itself.
                connection.shutdown(socket.SHUT_RDWR)


def _names() -> list[str]:
    """Name the open files of this process; none where the system does not say."""
    try:
        return os.listdir(_FILES)  # noqa: PTH208 - a path for each of thousands is dear
    except OSError:
        return []


def _connections(port: int) -> Iterator[tuple[Peer, socket.socket]]:
    """Yield whose connections to this port this process has, each by a file of its own, open until the next one."""
    for name in _names():
        with contextlib.suppress(OSError), _duplicate(int(name)) as one:
            host, here = one.getpeername(), one.getsockname()
            if one.family in (socket.AF_INET, socket.AF_INET6) and here[1] == port:
                yield Peer.at(*host), one


def _duplicate(number: int) -> socket.socket:
    """Return the socket of an open file, which stays that one whatever becomes of the number. Raises OSError."""
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    copy = os.dup(number)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
