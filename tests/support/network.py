"""Addresses that nobody else uses: networks and ports that one process has for as long as it lives.

So test workers, test runs, benchmarks and demos that run at the same time never meet, and a server that was killed can
come back to its own address.
"""

from __future__ import annotations

import errno
import functools
import os
import random
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

BACKEND_PORT = 8000
"""The one port of every backend: only their addresses differ, as those of pods do."""
_SECOND_OCTETS = range(16, 255)
_SIZE = 100
_OF_THE_PROGRAMS = (18_000, 19_000)
"""In these blocks ours have theirs unless they are told otherwise, or in any case: no model is given one."""
_OF_MODELS = (10_000, 12_300)
"""In the first a controller has the ports that it gives first, in the second is 12345, which tests fix: a program that
listened there would take the port from its model.
"""
PORT_BLOCKS = tuple(first for first in range(10_000, 32_700, _SIZE) if first not in _OF_THE_PROGRAMS + _OF_MODELS)
"""The first ports of blocks below what Linux gives to outgoing connections unless it is told otherwise (32768)."""
_LISTENS = "0A"


@dataclass(frozen=True, slots=True)
class Network:
    """127.x.y.0/24."""

    prefix: str

    @classmethod
    def unused(cls) -> Network:
        """Return one that this process has not had before."""
        return next(_networks(os.getpid()))

    def host(self, number: int) -> str:
        return f"{self.prefix}.{number}"


def unused_port() -> int:
    """Return a port that is free on every address and that this process has not had before."""
    return next(port for port in _ports(os.getpid()) if is_free(port))


# By process: a fork claims for itself.


@functools.cache
def _networks(process: int) -> Iterator[Network]:
    octets = (octet for octet in _claimed("octet", _SECOND_OCTETS) if not _is_listened_on(octet))
    return (Network(f"127.{octet}.{third}") for octet in octets for third in range(1, 255))


@functools.cache
def _ports(process: int) -> Iterator[int]:
    return (port for first in _claimed("port", PORT_BLOCKS) for port in range(first, first + _SIZE))


def _claimed(what: str, numbers: Sequence[int]) -> Iterator[int]:
    """Yield numbers that no other process has, each once; they are this one's from then on.

    A claim is a name in the abstract namespace of Unix sockets (unix(7)): it has one holder, belongs to the same
    network namespace as the addresses do, leaves no file, and ends with its process, however that ends.
    """
    for number in random.sample(numbers, len(numbers)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0beamlit/{what}/{number}")
        except OSError:
            claim.close()
            continue
        claim.detach()  # Open until the process ends.
        yield number


def is_free(port: int) -> bool:
    """Whether nobody listens on any address, of either family that this machine has."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            probe = socket.socket(family)
        except OSError:
            continue
        with probe:
            if family == socket.AF_INET6:  # Or it asked for both again.
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
    return True


def _is_listened_on(octet: int) -> bool:
    """Tell whether anybody listens at 127.octet: what was started by one that claimed it before, and was killed."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    # An address is written backwards.
    return any(local[4:8] == f"{octet:02X}7F" and state == _LISTENS for _, local, _, state, *_ in lines)
