"""Addresses that nobody else uses: each test module has a loopback network of its own, so ports never collide."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Network:
    """127.x.y.0/24."""

    prefix: str

    @classmethod
    def unused(cls) -> Network:
        while True:
            network = cls(f"127.{random.randint(16, 254)}.{random.randint(1, 254)}")
            # The first address of a network in use always listens here, see below.
            with socket.socket() as probe:
                if probe.connect_ex((network.host(2), BACKEND_PORT)) != 0:
                    return network

    def host(self, number: int) -> str:
        return f"{self.prefix}.{number}"


BACKEND_PORT = 8000
"""The one port of every backend: only their addresses differ, as those of pods do."""


def unused_port() -> int:
    """Return a port that is free on every address and that the kernel does not give to outgoing connections."""
    for port in random.sample(range(20000, 32000), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))  # refused if anybody listens on any address
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
