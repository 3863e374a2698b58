"""Free addresses on this machine for everything the demo starts."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass

_REPLICAS = 3
# Node ports of Kubernetes, and below the ports that the kernel gives to outgoing connections: a server that was killed
# can come back to its own.
_PORTS = range(30000, 32768)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Every port is free on 127.0.0.1 and unlike the others; `replicas` are (host, port)."""

    front: int
    """Where Envoy listens: the node port of the Service."""
    remote: int
    tokens: int
    xds: int
    admin: int
    replicas: tuple[tuple[str, int], ...]


def free_addresses() -> Addresses:
    """Choose addresses that nobody has. Replicas are 127.0.0.2, .3, .4 with one port, as pods have it.

    Where only 127.0.0.1 is a loopback address (macOS) they are that one with several ports. Raises StopIteration when
    nothing is free.
    """
    free = (port for port in random.sample(_PORTS, len(_PORTS)) if _is_free("127.0.0.1", port))
    front, remote, tokens, xds, admin, shared = (next(free) for _ in range(6))
    replicas = tuple((f"127.0.0.{number}", shared) for number in range(2, 2 + _REPLICAS))
    if not all(_is_free(host, port) for host, port in replicas):
        replicas = tuple(("127.0.0.1", next(free)) for _ in range(_REPLICAS))
    return Addresses(front, remote, tokens, xds, admin, replicas)


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
