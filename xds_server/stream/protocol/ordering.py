"""Make before break: what of one type may go to the client now, and how long the rest may wait.

A resource goes out once the client has ACKed, in any version, what it requires; a removal goes out once the client has
nothing left that requires what is removed. That is decided per resource, not per type. Source: xDS protocol, "Eventual
consistency considerations" (X43, X44). Everything here reads the ledgers of one session and changes none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from xds_server.snapshot.snapshot import (
    CLUSTER,
    ENDPOINT,
    LISTENER,
    MAKE_BEFORE_BREAK,
    ROUTE,
    SCOPED_ROUTE,
    SECRET,
    Resource,
    ResourceKey,
    SnapshotView,
)
from xds_server.stream.protocol.holdings import OVERHEAD_BYTES, Catalog, Held
from xds_server.stream.protocol.ledger import Ledger
from xds_server.stream.protocol.messages import ClientTerms, Overdue
from xds_server.stream.protocol.parts import Parts, batches

Ledgers = Mapping[str, Ledger]
Lookup = Callable[[ResourceKey], Resource | None]

RANK = {type_url: rank for rank, type_url in enumerate(MAKE_BEFORE_BREAK)}

# Which types may require one of this type.
REFERRERS: Mapping[str, tuple[str, ...]] = {
    SECRET: (CLUSTER, LISTENER),
    CLUSTER: (LISTENER, ROUTE),
    ENDPOINT: (CLUSTER, LISTENER, ROUTE, SCOPED_ROUTE),
    ROUTE: (LISTENER, SCOPED_ROUTE),
}


# What a client asks for by itself once it has all resources of another type, by the types of what is required and of
# what requires it. A cluster does not wait for its own endpoints, and a listener not for its own routes.
_FOLLOWED: Mapping[tuple[str, str], str] = {
    (ENDPOINT, LISTENER): CLUSTER,
    (ENDPOINT, ROUTE): CLUSTER,
    (ENDPOINT, SCOPED_ROUTE): CLUSTER,
    (ROUTE, SCOPED_ROUTE): LISTENER,
}


class Gate(Enum):
    """Whether a resource may go out: now, once what it requires is there or overdue, or not before that is mended."""

    OPEN = "open"
    WAITING = "waiting"
    WITHHELD = "withheld"


@dataclass(slots=True)
class ResponsePlan:
    """What the next response of one type brings (`send`) and takes away (`remove`).

    `late` is what of it goes although something it requires is not there, `waiting` that more follows in bounded
    time. About the `idle` names there is nothing to say, and those that are `leaving` do not exist. `catalog` is there
    if it brings everything.
    """

    send: dict[str, Resource] = field(default_factory=dict)
    remove: dict[str, Held | None] = field(default_factory=dict)
    late: dict[str, Overdue] = field(default_factory=dict)
    idle: list[str] = field(default_factory=list)
    leaving: list[str] = field(default_factory=list)
    waiting: bool = False
    size: int = 0
    catalog: Catalog | None = None


class ResponsePlanner:
    """Plans the responses of one session from its ledgers; remembers only since when a resource waits."""

    def __init__(self, terms: ClientTerms, ledgers: Ledgers, view: SnapshotView, now: float) -> None:
        self.wake_at: float | None = None
        self._terms = terms
        self._ledgers = ledgers
        self._view = view
        self._opened_at = now
        self._waiting_since: dict[ResourceKey, float] = {}

    def forget(self, key: ResourceKey) -> None:
        """End the wait of a resource that was sent or is no longer wanted."""
        self._waiting_since.pop(key, None)

    @property
    def waits(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiting_since)

    def forget_unwanted(self, ledger: Ledger) -> None:
        """End the waits of what a changed subscription no longer covers."""
        for key in tuple(self._waiting_since):
            if key.type_url == ledger.type_url and not ledger.wants(key.name):
                self.forget(key)

    def plan_all(self, ledger: Ledger, catalog: Catalog) -> ResponsePlan | None:
        """Plan the response that brings all there is to a client that has nothing, if nothing has to wait.

        It is what `plan` comes to, name by name, which for a thousand clients that join at once is seconds.
        """
        if not ledger.lacks_all(catalog.names) or catalog.size > self._terms.max_response_bytes:
            return None
        if self._terms.ordered and not all(self._has(ledger.type_url, *one) for one in catalog.required.items()):
            return None
        return ResponsePlan(send=dict(catalog.resources), size=catalog.size, catalog=catalog)

    def _has(self, referrer: str, type_url: str, names: frozenset[str]) -> bool:
        """Whether the client has all that this type may have to wait for: see `unmet`."""
        if RANK[type_url] >= RANK[referrer]:
            return True
        ledger = self._ledgers.get(type_url)
        return ledger is not None and ledger.has_some_of_each(names)

    def plan(self, ledger: Ledger, now: float, splits: bool) -> Parts[ResponsePlan]:
        """Plan the next response of one type; suspects go before the rest and apart from each other."""
        idle: list[str] = []
        plan = ResponsePlan()
        for names in ledger.groups():
            plan = yield from self._plan_of(ledger, names, now, splits)
            idle += plan.idle
            if plan.send or plan.remove:
                break
        plan.idle = idle
        return plan

    def _plan_of(self, ledger: Ledger, names: Iterable[str], now: float, splits: bool) -> Parts[ResponsePlan]:
        plan = ResponsePlan()
        for batch in batches(sorted(names)):
            if not self._plan_some(ledger, batch, plan, now, splits):
                break  # the rest stays pending and follows the ACK (X50)
            yield
        yield from self._plan_removals(ledger, plan, now)
        return plan

    def _plan_some(self, ledger: Ledger, names: Iterable[str], plan: ResponsePlan, now: float, splits: bool) -> bool:
        """Plan what of these is to be sent, and note what is leaving; return whether there is room for more."""
        there: Mapping[str, Resource] = self._view.of_type(ledger.type_url) or {}
        for name in names:
            resource = there.get(name)
            if resource is None:
                plan.leaving.append(name)
            elif ledger.is_current(resource):
                self._pass(resource.key, plan)
            elif (gate := self._gate(ledger, resource, plan, now)) is not Gate.OPEN:
                plan.waiting = plan.waiting or gate is Gate.WAITING
            else:
                size = len(resource.body) + len(name) + OVERHEAD_BYTES
                if plan.send and plan.size + size > self._terms.max_response_bytes and splits:
                    return False
                plan.size += size
                plan.send[name] = resource
        return True

    def _gate(self, ledger: Ledger, resource: Resource, plan: ResponsePlan, now: float) -> Gate:
        """Tell whether all that `resource` requires is there, or was waited for long enough (X44).

        While something it requires is refused, a client that has an earlier version keeps that for good: sending the
        new one would direct traffic that works now to nowhere. A client without one has nothing to lose, and neither
        has one whose earlier version is that of another owner: on a port that passed to another model, the model
        before must not go on.
        """
        if not self._terms.ordered or not resource.requires:
            return Gate.OPEN
        missing = unmet(self._ledgers, resource, self._view.find)
        if not missing:
            return Gate.OPEN
        key = resource.key
        refused = [_is_refused(self._ledgers, one, self._view.find) for one in missing]
        if any(refused) and _is_of_same_owner(ledger.find(key.name), resource):
            self._waiting_since.pop(key, None)
            return Gate.WITHHELD
        if all(refused):
            # There is nothing to wait for, and what waits behind it may be another model's.
            plan.late[key.name] = Overdue(key, tuple(sorted(missing)), now)
            return Gate.OPEN
        deadline = self._waiting_since.setdefault(key, now) + self._terms.timing.make_before_break
        if now < deadline:
            self._wake(deadline)
            return Gate.WAITING
        plan.late[key.name] = Overdue(key, tuple(sorted(missing)), now)
        return Gate.OPEN

    def _plan_removals(self, ledger: Ledger, plan: ResponsePlan, now: float) -> Parts[None]:
        """Plan to remove what nothing requires any more (X43), and at once what the client never had (X33)."""
        had: list[str] = []
        held = ledger.held
        for batch in batches(plan.leaving):
            for name in batch:
                if name in held and self._terms.ordered:
                    had.append(name)
                elif name in held or name in ledger.rejections or ledger.owes(name):
                    plan.remove[name] = held.get(name)
                else:
                    self._pass(ResourceKey(ledger.type_url, name), plan)
            yield
        if not had or _may_be_required(self._ledgers, ledger.type_url):
            return  # what a client had before it connected, and is unknown to us, may require anything (X39)
        required = yield from _still_required(self._ledgers, ledger.type_url, had)
        settles = self._settles(ledger.type_url, now)
        for batch in batches(had):
            for name in batch:
                if name in required:
                    continue
                if settles is not None and held[name].unknown:
                    self._wake(settles)
                else:
                    plan.remove[name] = held[name]
            yield

    def _settles(self, type_url: str, now: float) -> float | None:
        """Say until when a client that connected again has time to name what else it has; None if that is over."""
        until = self._opened_at + self._terms.timing.settle
        return until if now < until and _referrers_unseen(self._ledgers, type_url) else None

    def _pass(self, key: ResourceKey, plan: ResponsePlan) -> None:
        plan.idle.append(key.name)
        self._waiting_since.pop(key, None)

    def _wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def unmet(ledgers: Ledgers, resource: Resource, visible: Lookup) -> tuple[ResourceKey, ...]:
    """Return what `resource` requires and the client will have, but has not ACKed yet."""
    return tuple(
        key for key in resource.requires if _will_be_held(ledgers, resource, key, visible) and not _held(ledgers, key)
    )


def comes_before_its_type(ledgers: Ledgers, resource: Resource) -> bool:
    """Whether `resource` requires clusters, and the client has asked for none so far on this stream.

    A client that asks for clusters by name does so once it has the listener. Envoy asks for all of them first. But
    while a cluster warms that it was given on an earlier stream, it says nothing of clusters, until that has its
    endpoints or was waited for long enough.
    """
    return CLUSTER not in ledgers and any(key.type_url == CLUSTER for key in resource.requires)


def assignments_of(cluster: Resource) -> tuple[ResourceKey, ...]:
    """Return the endpoints that belong to a cluster: those it requires, else those of its own name."""
    if cluster.key.type_url != CLUSTER:
        return ()
    named = tuple(key for key in cluster.requires if key.type_url == ENDPOINT)
    return named or (ResourceKey(ENDPOINT, cluster.key.name),)


def _will_be_held(ledgers: Ledgers, resource: Resource, required: ResourceKey, visible: Lookup) -> bool:
    """Whether the client gets `required` without being given `resource` first.

    It does not if it asks for it by name only after it has `resource` (a listener's route, a cluster's secret, every
    cluster of a gRPC client), or if it may not see it at all. A client of all clusters asks for the endpoints of each,
    and one of all listeners for the route configuration of each.
    """
    if RANK[required.type_url] >= RANK[resource.key.type_url]:
        return False
    if required.type_url == SECRET and visible(required) is None:
        return False
    ledger = ledgers.get(required.type_url)
    if ledger is not None and ledger.wants(required.name):
        return True
    followed = ledgers.get(_FOLLOWED.get((required.type_url, resource.key.type_url), ""))
    return followed is not None and followed.subscription.wildcard


def _is_of_same_owner(held: Held | None, resource: Resource) -> bool:
    """Whether what the client has under this name is an earlier version, and not what another owner had there.

    Endpoints belong to one owner: two that require some, and none in common, have two owners.
    """
    if held is None:
        return False
    wanted = _endpoints_of(resource)
    had = frozenset().union(*map(_endpoints_of, held.contents))
    return not (wanted and had) or not wanted.isdisjoint(had)


def _endpoints_of(resource: Resource) -> frozenset[ResourceKey]:
    return frozenset(key for key in resource.requires if key.type_url == ENDPOINT)


def _held(ledgers: Ledgers, key: ResourceKey) -> bool:
    ledger = ledgers.get(key.type_url)
    held = ledger.find(key.name) if ledger is not None else None
    return held is not None and held.certain


def _is_refused(ledgers: Ledgers, key: ResourceKey, visible: Lookup) -> bool:
    """Whether the client has refused the current content of `key`."""
    resource, ledger = visible(key), ledgers.get(key.type_url)
    return resource is not None and ledger is not None and ledger.quarantines(resource)


def _still_required(ledgers: Ledgers, type_url: str, leaving: Collection[str]) -> Parts[frozenset[str]]:
    """Return which of the `leaving` names of one type something requires that the client has, or may still have.

    That is what it ACKed, what is in flight, and what was removed in a response that it has not answered yet.
    """
    still: set[str] = set()
    for referrer in REFERRERS.get(type_url, ()):
        if (ledger := ledgers.get(referrer)) is not None:
            required, in_flight, held = ledger.required, _required_in_flight(ledger), ledger.held
            for batch in batches(leaving):
                for name in batch:
                    key = ResourceKey(type_url, name)
                    if key in required or key in in_flight or _belongs_to(key, held.get(name)):
                        still.add(name)
                yield
    return frozenset(still)


def _required_in_flight(ledger: Ledger) -> frozenset[ResourceKey]:
    flight = ledger.flight
    if flight is None:
        return frozenset()
    removed = (resource for held in flight.removed.values() if held is not None for resource in held.contents)
    resources = (*flight.sent.values(), *removed)
    return frozenset(key for one in resources for key in (*one.requires, *assignments_of(one)))


def _belongs_to(key: ResourceKey, namesake: Held | None) -> bool:
    """Whether `key` are the endpoints of the cluster of their name, which requires them without saying so."""
    return namesake is not None and any(key in assignments_of(one) for one in namesake.contents)


def _may_be_required(ledgers: Ledgers, type_url: str) -> bool:
    """Whether the client has content unknown to us, from before it connected, that may require this type."""
    return any(_has_unknown(ledgers[referrer]) for referrer in REFERRERS.get(type_url, ()) if referrer in ledgers)


def _has_unknown(ledger: Ledger) -> bool:
    leaving = ledger.flight.removed.values() if ledger.flight is not None else ()
    return ledger.has_unknown or any(held.unknown for held in leaving if held is not None)


def _referrers_unseen(ledgers: Ledgers, type_url: str) -> bool:
    """Whether some type that may require this one was not asked for on this stream so far."""
    return any(referrer not in ledgers for referrer in REFERRERS.get(type_url, ()))
