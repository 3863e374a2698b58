"""The replicas behind one port of a Service, read from its EndpointSlices, and which of them may be sent to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from controller.api.destinations import ANYWHERE, OUTSIDE, Destinations
from controller.api.kubernetes.fronting import SLICES_OF
from controller.api.kubernetes.objects import MANAGED_BY, EndpointSlice

MOST = 1_000
"""So many replicas of one Service are taken that are ready, and as many that wait or leave: each Envoy connects to each
that it is told every few seconds, and who writes the slices of a Service without a selector chooses to whom. Kubernetes
itself puts no more into an Endpoints object ("Over-capacity endpoints").
"""


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
    Service the slices of one family count, or every pod would count twice: the one with replicas of this port that may
    be sent to, IPv4 where both have some.
    """
    found: dict[tuple[str, int], Replica] = {}
    for one, port in _of_one_family((one, port) for one in slices if (port := _port(one, port_name))):
        for endpoint in one.endpoints:
            if endpoint.is_replica or endpoint.is_leaving:
                replica = Replica(endpoint.addresses[0], port, endpoint.ready, endpoint.is_leaving)
                known = found.setdefault(replica[:2], replica)
                # Ready is more than not ready, and that is more than leaving.
                if (replica.ready, not replica.leaving) > (known.ready, not known.leaving):
                    found[replica[:2]] = replica
    return tuple(replica for _, replica in sorted(found.items()))


def taken(replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    """List those that there is room for, in the given order: whoever asks of the same ones takes the same."""
    found = tuple(replicas)
    if len(found) <= MOST:
        return found
    each: Counter[tuple[bool, bool]] = Counter()
    kept = []
    for one in found:
        kind = one.ready, one.leaving
        each[kind] += 1
        if each[kind] <= MOST:
            kept.append(one)
    return tuple(kept)


def _port(one: EndpointSlice, name: str) -> int | None:
    return next((port.port for port in one.ports if (port.name or "") == name and port.port), None)


def staying(replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    """List those that are not on their way out, ready or not."""
    return tuple(one for one in replicas if not one.leaving)


def usable(replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    """List those that requests may go to: the ready ones, or else those that are leaving (KEP-1669)."""
    found = tuple(replicas)
    return tuple(one for one in found if one.ready) or tuple(one for one in found if one.leaving)


def count_of_ready(slices: Iterable[EndpointSlice]) -> int:
    """Count the pods that are ready, whatever port they serve; each once, as in `replicas_of`."""
    endpoints = (endpoint for one, _ in _of_one_family((one, 0) for one in slices) for endpoint in one.endpoints)
    return len({endpoint.addresses[0] for endpoint in endpoints if endpoint.ready})


def _of_one_family(slices: Iterable[tuple[EndpointSlice, int]]) -> list[tuple[EndpointSlice, int]]:
    """Leave out the other family, and names. What the endpoint controller writes has the same pods in both."""
    found = list(slices)
    families = [[one for one in found if one[0].address_type == family] for family in ("IPv4", "IPv6")]
    return max(families, key=_worth)


def _worth(slices: list[tuple[EndpointSlice, int]]) -> int:
    endpoints = [endpoint for one, _ in slices for endpoint in one.endpoints]
    return max(
        (3 if one.ready else 2 if one.is_leaving else 1 if one.is_replica else 0 for one in endpoints), default=0
    )


# `kubernetes.io/docs/concepts/services-networking/endpoint-slices`, "Management": who writes the slices of a Service
# with a selector, and who mirrors the Endpoints of one without.
ENDPOINT_CONTROLLER = "endpointslice-controller.k8s.io"
MIRRORING_CONTROLLER = "endpointslicemirroring-controller.k8s.io"
SERVICE_CONTROLLERS = frozenset((ENDPOINT_CONTROLLER, MIRRORING_CONTROLLER))


def is_ours(one: EndpointSlice) -> bool:
    """Whether a slice leads clients of a Service that is taken over to the gateway: it has no replicas."""
    return one.metadata.labels.get(MANAGED_BY) == SLICES_OF


@dataclass(frozen=True, slots=True)
class AdmittedSlices:
    """The slices with the endpoints that may be sent to, and a sentence for each thing that was left out."""

    slices: tuple[EndpointSlice, ...]
    refused: tuple[str, ...] = ()


class EndpointGuard(Protocol):
    """Decides where requests may go: to which endpoints of a Service, and to which remote hosts."""

    def __call__(self, slices: Iterable[EndpointSlice], *, custom: bool) -> AdmittedSlices:
        """Leave out endpoints of one Service that may not be sent to; `custom`: its slices are written by hand."""
        ...

    @property
    def destinations(self) -> Destinations:
        """Where remote backends and token endpoints may be."""
        ...


@dataclass(frozen=True, slots=True)
class TrustAll:
    """Trusts whoever writes endpoints, as in a folder: who writes there starts the gateway."""

    destinations: Destinations = ANYWHERE

    def __call__(self, slices: Iterable[EndpointSlice], *, custom: bool) -> AdmittedSlices:
        """Leave nothing out but what leads back to the gateway."""
        return AdmittedSlices(tuple(one for one in slices if not is_ours(one)))


@dataclass(frozen=True, slots=True)
class PodsOnly:
    """Admits what a Service's own controllers wrote (any writer if `custom`) at addresses that pods may have."""

    destinations: Destinations = OUTSIDE

    def __call__(self, slices: Iterable[EndpointSlice], *, custom: bool) -> AdmittedSlices:
        """Leave out what others wrote, and what is at the gateway itself or beside it."""
        admitted, refused = [], []
        for one in slices:
            if is_ours(one):
                continue
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


admit_all: EndpointGuard = TrustAll()
"""Trusts everything."""

admit_pods: EndpointGuard = PodsOnly()
"""What a cluster begins with."""


def refused_address(address: str) -> str | None:
    """Say why no pod has this address; None when one may."""
    return OUTSIDE.refused_address(address)
