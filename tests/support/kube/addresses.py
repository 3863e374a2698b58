"""Addresses for what stands in an EndpointSlice, which the API server refuses at loopback."""

from __future__ import annotations

import socket


def own_address() -> str:
    """The address this machine would send from: the source of a route, no packet is sent.

    Replicas of a test listen on it, each on a port of its own, in one EndpointSlice per port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737.
        address: str = probe.getsockname()[0]
    return address
