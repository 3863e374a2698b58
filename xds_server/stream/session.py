"""The protocol with one client on one stream, without I/O: what both dialects, delta and state of the world, share.

Per type there is at most one response that the client has not answered (X48); what changes meanwhile is only marked, so
that intermediate states coalesce and the newest wins. A step looks at the marked names alone: one change costs the same
whether there are ten models or a thousand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from xds_server.snapshot.snapshot import Resource, ResourceKey, Snapshot
from xds_server.snapshot.types import CLUSTER, MAKE_BEFORE_BREAK, SECRET, SHORT
from xds_server.stream import ordering
from xds_server.stream.ledger import Ledger
from xds_server.stream.requests import Flight, Held, Output, Overdue, Rejection, Response, Terms
from xds_server.stream.subscription import Subscription

# Name, nonce, type URL and framing of one resource in a response, roughly.
OVERHEAD_BYTES = 192


class Gate(Enum):
    """Whether a resource may go out: now, once what it requires is there or overdue, or not before that is mended."""

    OPEN = "open"
    WAITING = "waiting"
    WITHHELD = "withheld"


@dataclass(slots=True)
class Plan:
    """What the next response of one type is about; `waiting` tells that more follows in bounded time."""

    send: dict[str, Resource] = field(default_factory=dict)
    remove: dict[str, Held | None] = field(default_factory=dict)
    waiting: bool = False
    size: int = 0


class Session(ABC):
    """One client. Feed it with `receive` (of the dialect), `publish` and `tick`; act on the Output each returns."""

    def __init__(self, snapshot: Snapshot, terms: Terms, now: float) -> None:
        self._snapshot = snapshot
        self._terms = terms
        self._opened_at = now
        self._ledgers: dict[str, Ledger] = {}
        self._blocked_since: dict[ResourceKey, float] = {}
        self._overdue: dict[ResourceKey, Overdue] = {}
        self._wake_at: float | None = None
        self._acknowledged: set[ResourceKey] = set()
        self._rejected: list[Rejection] = []
        self._expired: list[Overdue] = []

    # What others may ask.

    @property
    def types(self) -> tuple[str, ...]:
        """The types the client asked for so far."""
        return tuple(self._ledgers)

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """The resource versions the client refused and that are still current for it (X15)."""
        return tuple(r for ledger in self._ledgers.values() for r in ledger.rejected.values())

    @property
    def overdue(self) -> tuple[Overdue, ...]:
        """What was sent although the client has not yet ACKed all that it requires."""
        return tuple(self._overdue.values())

    @property
    def initialised(self) -> bool:
        """Whether the client ACKed an answer to each of its wildcards, or anything if it has none."""
        ledgers = self._ledgers.values()
        wildcards = [ledger for ledger in ledgers if ledger.subscription.wildcard]
        return any(ledger.acknowledged for ledger in ledgers) and all(ledger.acknowledged for ledger in wildcards)

    def holds(self, key: ResourceKey, version: str) -> bool:
        """Whether the client ACKed this version of the resource and was not given another since."""
        ledger = self._ledgers.get(key.type_url)
        held = ledger.held.get(key.name) if ledger is not None else None
        return held is not None and held.version == version

    # What happens.

    def publish(self, snapshot: Snapshot, changed: Iterable[ResourceKey], now: float) -> Output:
        """Take a new snapshot; `changed` are all keys that differ from the one before, removed ones included."""
        self._snapshot = snapshot
        touched = False
        for key in changed:
            ledger = self._ledgers.get(key.type_url)
            if ledger is not None and ledger.subscription.covers(key.name):
                ledger.dirty.add(key.name)
                touched = True
        return self._advance(now) if touched else Output(wake_at=self._wake_at)

    def tick(self, now: float) -> Output:
        """Let waits run out."""
        return self._advance(now)

    # For the dialects.

    @abstractmethod
    def _response(self, ledger: Ledger, plan: Plan) -> Response | None:
        """Say what the plan looks like on the wire, None if it is booked without a word."""

    @abstractmethod
    def _splits(self, ledger: Ledger) -> bool:
        """Whether a response of this type may leave for the next one what would make it too large."""

    @abstractmethod
    def _removes(self, ledger: Ledger) -> bool:
        """Whether a response of this type can take a resource away."""

    def _change(self, ledger: Ledger, subscription: Subscription) -> None:
        """Install a subscription; waits for what it no longer covers are over."""
        ledger.change(subscription)
        for key in tuple(self._blocked_since):
            if key.type_url == ledger.type_url and not subscription.covers(key.name):
                del self._blocked_since[key]

    def _visible(self, key: ResourceKey) -> Resource | None:
        if key.type_url == SECRET and not self._terms.secrets:
            return None
        return self._snapshot.find(key)

    def _visible_names(self, type_url: str) -> Iterable[str]:
        if type_url == SECRET and not self._terms.secrets:
            return ()
        return self._snapshot.by_type.get(type_url, {}).keys()

    def _answer(self, ledger: Ledger, nonce: str, error: str | None, now: float) -> None:
        """Book the ACK or NACK in a request, if it answers the response in flight (X04, X13, X16)."""
        if ledger.flight is None or nonce != ledger.flight.nonce:
            return
        if error is not None:
            self._rejected += ledger.refuse(error, now)
            return
        flight = ledger.accept()
        if flight is None:
            return
        self._acknowledged.update(ResourceKey(ledger.type_url, name) for name in (*flight.sent, *flight.removed))
        if ledger.type_url == CLUSTER:
            for cluster in flight.sent.values():
                self._send_endpoints_again(cluster)

    def _send_endpoints_again(self, cluster: Resource) -> None:
        """Envoy warms a changed cluster until it gets its assignment once more, changed or not (X45)."""
        for key in ordering.assignments_of(cluster):
            endpoints = self._ledgers.get(key.type_url)
            if endpoints is not None and key.name in endpoints.held:
                endpoints.force([key.name])

    def _advance(self, now: float) -> Output:
        """Send what can be sent, in make-before-break order, and say what became known since the last step."""
        responses = []
        self._wake_at = None
        for type_url in (*MAKE_BEFORE_BREAK, *(t for t in self._ledgers if t not in SHORT)):
            ledger = self._ledgers.get(type_url)
            if ledger is not None and ledger.flight is None and (ledger.dirty or ledger.reply_due):
                response = self._next_response(ledger, now)
                if response is not None:
                    responses.append(response)
        if self._overdue:
            self._drop_caught_up()
        output = Output(
            tuple(responses),
            self._wake_at,
            frozenset(self._acknowledged),
            tuple(self._rejected),
            tuple(self._expired),
        )
        self._acknowledged.clear()
        self._rejected.clear()
        self._expired.clear()
        return output

    def _next_response(self, ledger: Ledger, now: float) -> Response | None:
        plan = self._plan_next(ledger, now)
        if ledger.reply_due and plan.waiting:
            return None  # a first answer is complete, or the client takes itself for initialised
        if not (plan.send or plan.remove or ledger.reply_due):
            return None
        response = self._response(ledger, plan)
        for name in (*plan.send, *plan.remove):
            ledger.settle(name)
            self._blocked_since.pop(ResourceKey(ledger.type_url, name), None)
        if response is not None:
            ledger.reply_due = False
            removed = plan.remove if self._removes(ledger) else {}
            ledger.flight = Flight(response.nonce, plan.send, removed)
            for name in removed:
                ledger.held.pop(name, None)
        return response

    def _nonce(self, ledger: Ledger) -> str:
        ledger.responses += 1
        kind = SHORT.get(ledger.type_url, ledger.type_url)
        return f"{self._terms.nonce_prefix}{kind}-{ledger.responses}"

    def _plan_next(self, ledger: Ledger, now: float) -> Plan:
        ledger.suspects = [group for group in ledger.suspects if group & ledger.dirty]
        for group in ledger.suspects:
            plan = self._plan(ledger, group & ledger.dirty, now)
            if plan.send or plan.remove:
                ledger.suspects.remove(group)
                return plan
        return self._plan(ledger, ledger.dirty.difference(*ledger.suspects), now)

    def _plan(self, ledger: Ledger, names: Iterable[str], now: float) -> Plan:
        plan = Plan()
        leaving = []
        for name in sorted(names):
            key = ResourceKey(ledger.type_url, name)
            resource = self._visible(key)
            if resource is None:
                leaving.append(key)
            elif self._is_current(ledger, resource):
                ledger.settle(name)
                self._blocked_since.pop(key, None)
            elif (gate := self._gate(ledger, resource, now)) is not Gate.OPEN:
                plan.waiting = plan.waiting or gate is Gate.WAITING
            else:
                size = len(resource.body) + len(name) + OVERHEAD_BYTES
                if plan.send and plan.size + size > self._terms.max_response_bytes and self._splits(ledger):
                    break  # the rest stays marked and follows the ACK (X50)
                plan.size += size
                plan.send[name] = resource
        self._plan_removals(ledger, leaving, plan, now)
        return plan

    def _is_current(self, ledger: Ledger, resource: Resource) -> bool:
        if resource.key.name in ledger.forced:
            return False
        return ledger.has(resource) or ledger.quarantined(resource)

    def _gate(self, ledger: Ledger, resource: Resource, now: float) -> Gate:
        """Tell whether all that `resource` requires is there, or was waited for long enough (X44).

        While something it requires is refused, a client that has an earlier version keeps that for good: sending the new
        one would direct traffic that works now to nowhere. A client without one has nothing to lose.
        """
        if not self._terms.ordered or not resource.requires:
            return Gate.OPEN
        unmet = ordering.unmet(self._ledgers, resource, self._visible)
        if not unmet:
            return Gate.OPEN
        key = resource.key
        deadline = self._blocked_since.setdefault(key, now) + self._terms.wait_seconds
        if key.name in ledger.held and any(ordering.refused(self._ledgers, k, self._visible) for k in unmet):
            return Gate.WITHHELD
        if now < deadline:
            self._wake(deadline)
            return Gate.WAITING
        self._overdue[key] = Overdue(key, tuple(sorted(unmet)), now)
        self._expired.append(self._overdue[key])
        return Gate.OPEN

    def _plan_removals(self, ledger: Ledger, leaving: list[ResourceKey], plan: Plan, now: float) -> None:
        held_back: frozenset[ResourceKey] | None = None
        for key in leaving:
            held = ledger.held.get(key.name)
            if held is None and key.name not in ledger.rejected and key.name not in ledger.forced:
                ledger.settle(key.name)  # the client never had it
                self._blocked_since.pop(key, None)
                continue
            if held is not None and self._terms.ordered:
                if held_back is None:
                    held_back = ordering.still_required(self._ledgers)
                if key in held_back or not self._may_remove(key.type_url, held, now):
                    continue
            plan.remove[key.name] = held

    def _may_remove(self, type_url: str, held: Held, now: float) -> bool:
        """Whether nothing unknown to us can require what is removed: what a client had before it connected (X39)."""
        if ordering.may_be_required(self._ledgers, type_url):
            return False
        settled_at = self._opened_at + self._terms.settle_seconds
        if held.resource is None and now < settled_at and ordering.referrers_unseen(self._ledgers, type_url):
            self._wake(settled_at)
            return False
        return True

    def _wake(self, at: float) -> None:
        self._wake_at = at if self._wake_at is None else min(self._wake_at, at)

    def _drop_caught_up(self) -> None:
        for key in tuple(self._overdue):
            resource = self._visible(key)
            if resource is None or not ordering.unmet(self._ledgers, resource, self._visible):
                del self._overdue[key]
