"""The replicas behind one port of a Service, read from its EndpointSlices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from controller.api.core import EndpointSlice


class Replica(NamedTuple):
    """The address of one local replica, and whether new requests may go to it."""

    address: str
    port: int
    ready: bool


def replicas_of(slices: Iterable[EndpointSlice], port_name: str) -> tuple[Replica, ...]:
    """List the replicas of the port called `port_name` (empty for an unnamed one), each once, in a stable order.

    A pod may stand in two slices while the endpoint controller moves it: it is ready if either says so. Of a dual-stack
    Service only the IPv4 slices count, or every pod would count twice. Endpoints on their way out are no replicas.
    """
    ready: dict[tuple[str, int], bool] = {}
    for one in _of_one_family(slices):
        ports = [port.port for port in one.ports if (port.name or "") == port_name and port.port]
        if not ports:
            continue
        for endpoint in one.endpoints:
            if endpoint.counted:
                key = (endpoint.addresses[0], ports[0])
                ready[key] = ready.get(key, False) or endpoint.ready
    return tuple(Replica(address, port, is_ready) for (address, port), is_ready in sorted(ready.items()))


def count_of_ready(slices: Iterable[EndpointSlice]) -> int:
    """Count the pods that are ready, whatever port they serve; each once, as in `replicas_of`."""
    endpoints = (endpoint for one in _of_one_family(slices) for endpoint in one.endpoints)
    return len({endpoint.addresses[0] for endpoint in endpoints if endpoint.ready})


def _of_one_family(slices: Iterable[EndpointSlice]) -> list[EndpointSlice]:
    usable = [one for one in slices if one.address_type != "FQDN"]
    family = "IPv4" if any(one.address_type == "IPv4" and one.endpoints for one in usable) else "IPv6"
    return [one for one in usable if one.address_type == family]
