"""The replicas behind one port of a Service, read from its EndpointSlices, and which addresses may be sent to."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from controller.api.kubernetes.objects import MANAGED_BY, EndpointSlice


class Replica(NamedTuple):
    """The address of one local replica, and whether new requests may go to it.

    One that is `leaving` is not ready and terminates, and still answers: requests go there when nobody is ready.
    """

    address: str
    port: int
    ready: bool
    leaving: bool = False


def replicas_of(slices: Iterable[EndpointSlice], port_name: str) -> tuple[Replica, ...]:
    """List the replicas of the port called `port_name` (empty for an unnamed one), each once, in a stable order.

    A pod may stand in two slices while the endpoint controller moves it: it is ready if either says so. Of a dual-stack
    Service only the IPv4 slices count, or every pod would count twice.
    """
    found: dict[tuple[str, int], Replica] = {}
    for one in _of_one_family(slices):
        ports = [port.port for port in one.ports if (port.name or "") == port_name and port.port]
        if not ports:
            continue
        for endpoint in one.endpoints:
            if endpoint.is_replica or endpoint.is_leaving:
                replica = Replica(endpoint.addresses[0], ports[0], endpoint.ready, endpoint.is_leaving)
                known = found.setdefault(replica[:2], replica)
                # Ready is more than not ready, and that is more than leaving.
                if (replica.ready, not replica.leaving) > (known.ready, not known.leaving):
                    found[replica[:2]] = replica
    return tuple(replica for _, replica in sorted(found.items()))


def staying(replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    """List those that are not on their way out, ready or not."""
    return tuple(one for one in replicas if not one.leaving)


def usable(replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    """List those that requests may go to: the ready ones, or else those that are leaving (KEP-1669)."""
    found = tuple(replicas)
    return tuple(one for one in found if one.ready) or tuple(one for one in found if one.leaving)


def count_of_ready(slices: Iterable[EndpointSlice]) -> int:
    """Count the pods that are ready, whatever port they serve; each once, as in `replicas_of`."""
    endpoints = (endpoint for one in _of_one_family(slices) for endpoint in one.endpoints)
    return len({endpoint.addresses[0] for endpoint in endpoints if endpoint.ready})


def _of_one_family(slices: Iterable[EndpointSlice]) -> list[EndpointSlice]:
    usable = [one for one in slices if one.address_type != "FQDN"]
    family = "IPv4" if any(one.address_type == "IPv4" and one.endpoints for one in usable) else "IPv6"
    return [one for one in usable if one.address_type == family]


# `kubernetes.io/docs/concepts/services-networking/endpoint-slices`, "Management": who writes the slices of a Service
# with a selector, and who mirrors the Endpoints of one without.
SERVICE_CONTROLLERS = frozenset(("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"))

# Metadata servers outside the link-local range: AWS (IPv6), Google (IPv6), Alibaba, Azure, Oracle.
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    )
)

_METADATA_NAMES = frozenset(
    ("metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")
)

# Translated to IPv4 by the network where it knows how (RFC 6052, section 2.1).
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

# Nothing but numbers is an address to many a resolver (inet_aton(3)); that of Envoy takes 127.0.0.01 for loopback.
_NUMBER = r"([0-9]+|0[xX][0-9a-fA-F]*)"
_NUMBERS = re.compile(rf"{_NUMBER}(\.{_NUMBER})*\.?")


@dataclass(frozen=True, slots=True)
class AdmittedSlices:
    """The slices with the endpoints that may be sent to, and a sentence for each thing that was left out."""

    slices: tuple[EndpointSlice, ...]
    refused: tuple[str, ...] = ()


class EndpointGuard(Protocol):
    """Decides where requests may go."""

    def __call__(self, slices: Iterable[EndpointSlice], *, custom: bool) -> AdmittedSlices:
        """Leave out endpoints of one Service that may not be sent to; `custom`: its slices are written by hand."""
        ...

    def refused_host(self, host: str) -> str | None:
        """Say why a model may not send its requests to a remote host; None when it may."""
        ...


class _AdmitAll:
    def __call__(self, slices: Iterable[EndpointSlice], *, custom: bool) -> AdmittedSlices:
        return AdmittedSlices(tuple(slices))

    def refused_host(self, host: str) -> str | None:
        return None


class _AdmitPods:
    def __call__(self, slices: Iterable[EndpointSlice], *, custom: bool) -> AdmittedSlices:
        admitted, refused = [], []
        for one in slices:
            name = f"EndpointSlice {one.metadata.namespace}/{one.metadata.name}"
            writer = one.metadata.labels.get(MANAGED_BY, "")
            if not custom and writer not in SERVICE_CONTROLLERS:
                refused.append(f"{name} is not of the Service's own controllers: its label {MANAGED_BY} is {writer!r}")
                continue
            # Only the first address of an endpoint is used.
            reasons = {endpoint: refused_address(endpoint.addresses[0]) for endpoint in one.endpoints}
            refused += [f"{name}: {bad.addresses[0]} is {reason}" for bad, reason in reasons.items() if reason]
            if any(reasons.values()):
                kept = tuple(endpoint for endpoint, reason in reasons.items() if not reason)
                admitted.append(one.model_copy(update={"endpoints": kept}))
            else:
                admitted.append(one)
        return AdmittedSlices(tuple(admitted), tuple(refused))

    def refused_host(self, host: str) -> str | None:
        name = host.rstrip(".").lower()
        if name == "localhost" or name.endswith(".localhost"):
            return "this host itself"
        if name in _METADATA_NAMES:
            return "the name of a cloud's metadata server"
        return refused_address(host)


admit_all: EndpointGuard = _AdmitAll()
"""Trusts everything, as in a folder: who writes there starts the gateway."""

admit_pods: EndpointGuard = _AdmitPods()
"""Admits what a Service's own controllers wrote (any writer if `custom`) at addresses that pods may have.

Remote hosts may be anything but the gateway itself and what stands beside it. A name may resolve to any address: where
that matters, a network policy on the gateway's pods is what helps.
"""


def refused_address(host: str) -> str | None:
    """Say why nothing may be sent to a host written as an address; None when it may, or when it is a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        is_name = ":" not in host and not _NUMBERS.fullmatch(host)
        return None if is_name else "no address in its usual form"
    if isinstance(address, ipaddress.IPv6Address):
        address = _embedded_ipv4(address) or address
    if address in _METADATA:
        return "the address of a cloud's metadata server"
    for holds, reason in (
        (address.is_loopback, "a loopback address"),
        (address.is_link_local, "a link-local address"),
        (address.is_multicast, "a multicast address"),
        (address.is_unspecified, "no address of a host"),
    ):
        if holds:
            return reason
    return None


def _embedded_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that is reached by way of this one, if one is."""
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour
