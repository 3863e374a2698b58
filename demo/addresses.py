"""Addresses of its own on this machine for everything the demo starts."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.network import BACKEND_PORT, Network, unused_port

_REPLICAS = 3


@dataclass(frozen=True, slots=True)
class Addresses:
    """Every port is on 127.0.0.1 and unlike the others; `replicas` are (host, port)."""

    front: int
    """Where Envoy listens: the node port of the Service."""
    remote: int
    tokens: int
    xds: int
    admin: int
    replicas: tuple[tuple[str, int], ...]


def unused_addresses() -> Addresses:
    """Choose addresses that nobody has. The replicas differ in their hosts and have one port, as pods do."""
    front, remote, tokens, xds, admin = (unused_port() for _ in range(5))
    network = Network.unused()
    replicas = tuple((network.host(number), BACKEND_PORT) for number in range(1, _REPLICAS + 1))
    return Addresses(front, remote, tokens, xds, admin, replicas)
