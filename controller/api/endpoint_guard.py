"""Which endpoints of a cluster may be sent to: those that the Service's own controllers wrote, at addresses of pods.

Whoever may write EndpointSlices could otherwise let the gateway send requests where he cannot send any himself
(CVE-2021-25740 is of this kind): to the gateway's own admin address, to a node, to a cloud's metadata server.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from controller.api.core import EndpointSlice
from controller.api.meta import MANAGED_BY

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
class Admitted:
    """The slices with what may be sent to, and a sentence for everything that was left out."""

    slices: tuple[EndpointSlice, ...]
    refused: tuple[str, ...] = ()


class EndpointGuard(Protocol):
    """Says where requests may go."""

    def __call__(self, slices: Iterable[EndpointSlice], *, custom: bool) -> Admitted:
        """Leave out endpoints of one Service that do not count; `custom`: its slices are written by hand on purpose."""
        ...

    def refused_host(self, host: str) -> str | None:
        """Say why a model may not send its requests to a remote host; None when it may."""
        ...


class _Trusting:
    def __call__(self, slices: Iterable[EndpointSlice], *, custom: bool) -> Admitted:
        return Admitted(tuple(slices))

    def refused_host(self, host: str) -> str | None:
        return None


class _PodsOnly:
    def __call__(self, slices: Iterable[EndpointSlice], *, custom: bool) -> Admitted:
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
        return Admitted(tuple(admitted), tuple(refused))

    def refused_host(self, host: str) -> str | None:
        name = host.rstrip(".").lower()
        if name == "localhost" or name.endswith(".localhost"):
            return "this host itself"
        if name in _METADATA_NAMES:
            return "the name of a cloud's metadata server"
        return refused_address(host)


admit_all: EndpointGuard = _Trusting()
"""Trusts everything, as in a folder: who writes there starts the gateway."""

admit_pods: EndpointGuard = _PodsOnly()
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
        address = _within(address) or address
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


def _within(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that is reached by way of this one, if one is."""
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour
