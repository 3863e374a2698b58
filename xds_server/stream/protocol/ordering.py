"""Make before break, per resource instead of per type.

A resource goes out once the client has ACKed, in any version, what it requires; a removal goes out once the client has
nothing left that requires what is removed. Source: xDS protocol, "Eventual consistency considerations" (X43, X44). All
functions read the ledgers of one session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xds_server.snapshot.snapshot import (
    CLUSTER,
    ENDPOINT,
    LISTENER,
    MAKE_BEFORE_BREAK,
    ROUTE,
    SECRET,
    Resource,
    ResourceKey,
)
from xds_server.stream.protocol.holdings import Holdings
from xds_server.stream.protocol.ledger import Ledger

Ledgers = Mapping[str, Ledger]
Lookup = Callable[[ResourceKey], Resource | None]

RANK = {type_url: rank for rank, type_url in enumerate(MAKE_BEFORE_BREAK)}

# Which types may require one of this type.
REFERRERS: Mapping[str, tuple[str, ...]] = {
    SECRET: (CLUSTER, LISTENER),
    CLUSTER: (LISTENER, ROUTE),
    ENDPOINT: (CLUSTER, LISTENER, ROUTE),
    ROUTE: (LISTENER,),
}


def unmet(ledgers: Ledgers, resource: Resource, visible: Lookup) -> tuple[ResourceKey, ...]:
    """Return what `resource` requires and the client will have, but has not ACKed yet."""
    return tuple(
        key for key in resource.requires if _will_be_held(ledgers, resource, key, visible) and not _held(ledgers, key)
    )


def _will_be_held(ledgers: Ledgers, resource: Resource, required: ResourceKey, visible: Lookup) -> bool:
    """Whether the client gets `required` without being given `resource` first.

    It does not if it asks for it by name only after seeing `resource` (a listener's route, a cluster's secret, every
    cluster of a gRPC client), or if it may not see it at all. A client of all clusters asks for the endpoints of each.
    """
    if RANK[required.type_url] >= RANK[resource.key.type_url]:
        return False
    if required.type_url == SECRET and visible(required) is None:
        return False
    ledger = ledgers.get(required.type_url)
    if ledger is not None and ledger.subscription.covers(required.name):
        return True
    clusters = ledgers.get(CLUSTER)
    follows_clusters = required.type_url == ENDPOINT and resource.key.type_url != CLUSTER
    return follows_clusters and clusters is not None and clusters.subscription.wildcard


def _held(ledgers: Ledgers, key: ResourceKey) -> bool:
    ledger = ledgers.get(key.type_url)
    held = ledger.held.get(key.name) if ledger is not None else None
    return held is not None and held.certain


def refused(ledgers: Ledgers, key: ResourceKey, visible: Lookup) -> bool:
    """Whether the client has refused the current content of `key`."""
    resource, ledger = visible(key), ledgers.get(key.type_url)
    return resource is not None and ledger is not None and ledger.quarantined(resource)


def still_required(ledgers: Ledgers, type_url: str, leaving: frozenset[str]) -> frozenset[str]:
    """Return which of the `leaving` names of one type something requires that the client has, or may still have.

    That is what it ACKed, what is in flight, and what was removed in a response that it has not answered yet.
    """
    required: set[str] = set()
    for referrer in REFERRERS.get(type_url, ()):
        if (ledger := ledgers.get(referrer)) is not None:
            in_flight = _required_in_flight(ledger)
            keys = (ResourceKey(type_url, name) for name in leaving)
            required.update(key.name for key in keys if key in in_flight or _require(ledger.held, key))
    return frozenset(required)


def _required_in_flight(ledger: Ledger) -> frozenset[ResourceKey]:
    if ledger.flight is None:
        return frozenset()
    taken = (resource for held in ledger.flight.removed.values() if held is not None for resource in held.contents)
    resources = (*ledger.flight.sent.values(), *taken)
    return frozenset(key for one in resources for key in (*one.requires, *assignments_of(one)))


def _require(held: Holdings, key: ResourceKey) -> bool:
    """Whether something held requires `key`; a cluster requires the endpoints of its name without saying so."""
    namesake = held.get(key.name)
    return held.require(key) or (namesake is not None and any(key in assignments_of(one) for one in namesake.contents))


def may_be_required(ledgers: Ledgers, type_url: str) -> bool:
    """Whether the client has content unknown to us, from before it connected, that may require this type."""
    return any(_has_unknown(ledgers[referrer]) for referrer in REFERRERS.get(type_url, ()) if referrer in ledgers)


def _has_unknown(ledger: Ledger) -> bool:
    leaving = ledger.flight.removed.values() if ledger.flight is not None else ()
    return ledger.held.has_unknown or any(held.unknown for held in leaving if held is not None)


def referrers_unseen(ledgers: Ledgers, type_url: str) -> bool:
    """Whether some type that may require this one was not asked for on this stream so far."""
    return any(referrer not in ledgers for referrer in REFERRERS.get(type_url, ()))


def assignments_of(cluster: Resource) -> tuple[ResourceKey, ...]:
    """Return the endpoints that belong to a cluster: those it requires, else those of its own name."""
    if cluster.key.type_url != CLUSTER:
        return ()
    named = tuple(key for key in cluster.requires if key.type_url == ENDPOINT)
    return named or (ResourceKey(ENDPOINT, cluster.key.name),)
