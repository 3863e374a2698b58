"""Which gateways are ready, and which of them get their configuration: one that does not would know no new model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from controller.api.registry import POD
from controller.frontend.service_facts import is_ready
from controller.observe.proxies import ProxyFacts
from controller.store.objects import StoredObject

# Gateways that are named, of all that are missing.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class ReadyGateway:
    """A gateway that is ready: its name, and all by which an xDS server may know it: its pod, its addresses."""

    name: str
    known_as: frozenset[str]


def ready_gateways(slices: Iterable[StoredObject]) -> tuple[ReadyGateway, ...]:
    """List the ready gateways in the slices of their Service; one may have an address of each family.

    Those without a pod cannot be told from each other's other family: the family that has more of them counts.
    """
    by_pod: dict[str, frozenset[str]] = {}
    others: list[tuple[str, str]] = []
    for one in slices:
        for endpoint in one.raw.get("endpoints") or ():
            if not is_ready(endpoint):
                continue
            addresses = frozenset(map(str, endpoint.get("addresses") or ()))
            target = endpoint.get("targetRef") or {}
            if pod := str(target.get("name") or "") if target.get("kind") == POD.kind else "":
                by_pod[pod] = by_pod.get(pod, frozenset((pod,))) | addresses
            else:
                others += [(str(one.raw.get("addressType")), address) for address in addresses]
    families = Counter(family for family, _ in others)
    family = max(families, key=lambda one: families[one], default="")
    return (
        *(ReadyGateway(pod, names) for pod, names in sorted(by_pod.items())),
        *(ReadyGateway(address, frozenset((address,))) for at, address in sorted(set(others)) if at == family),
    )


def _names(slices: Iterable[StoredObject]) -> frozenset[str]:
    """All by which an xDS server may know a gateway, ready or not."""
    found = [endpoint for one in slices for endpoint in one.raw.get("endpoints") or ()]
    targets = [one.get("targetRef") or {} for one in found]
    pods = (str(one.get("name") or "") for one in targets if one.get("kind") == POD.kind)
    addresses = (str(address) for one in found for address in one.get("addresses") or ())
    return frozenset(filter(None, (*pods, *addresses)))


def not_connected(slices: Iterable[StoredObject], reported: ProxyFacts) -> str:
    """Say which ready gateways no xDS server has; empty if it has all, as far as can be told.

    A gateway is known by its node id, which is the name of its pod unless it is given another one, and by the address
    that it comes from. Where none is known by either, or xDS servers do not say whom they have, they are counted. One
    that drains counts among those that are known: the Envoy that is connected may be that one. It has what is wrong
    with a client that does not count only if that is one of these gateways: who else comes is a matter of others.
    """
    slices = tuple(slices)
    ready, known = ready_gateways(slices), reported.known_as
    refused = reported.refused_at(frozenset[str]().union(*(one.known_as for one in ready if not known & one.known_as)))
    why = f": {refused}" if refused else ""
    missing = [one.name for one in ready if not known & one.known_as] if known else []
    if missing and known & _names(slices):
        names = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
        return f"of {len(ready)} gateways that are ready the xDS servers do not have {names}{why}"
    if reported.connected < len(ready):
        counted = f"{len(ready)} gateways are ready, and {reported.connected} Envoys are connected to the xDS servers"
        return f"{counted}{why}"
    return ""
