"""What the next response of one type shall bring and take away, and how long what cannot go yet may wait."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from xds_server.snapshot.snapshot import Resource, ResourceKey
from xds_server.stream.protocol import ordering
from xds_server.stream.protocol.ledger import Ledger
from xds_server.stream.protocol.requests import Held, Overdue, Terms

# Name, nonce, type URL and framing of one resource in a response, roughly.
OVERHEAD_BYTES = 192


class Gate(Enum):
    """Whether a resource may go out: now, once what it requires is there or overdue, or not before that is mended."""

    OPEN = "open"
    WAITING = "waiting"
    WITHHELD = "withheld"


@dataclass(slots=True)
class Plan:
    """What the next response of one type is about.

    `late` tells what of it goes although something it requires is not there, `waiting` that more follows in bounded
    time.
    """

    send: dict[str, Resource] = field(default_factory=dict)
    remove: dict[str, Held | None] = field(default_factory=dict)
    late: dict[str, Overdue] = field(default_factory=dict)
    waiting: bool = False
    size: int = 0


class Planner:
    """Plans the responses of one session from its ledgers; remembers only since when a resource waits."""

    def __init__(self, terms: Terms, ledgers: ordering.Ledgers, visible: ordering.Lookup, now: float) -> None:
        self.wake_at: float | None = None
        self._terms = terms
        self._ledgers = ledgers
        self._visible = visible
        self._opened_at = now
        self._waiting_since: dict[ResourceKey, float] = {}

    def forget(self, key: ResourceKey) -> None:
        """End the wait of a resource that was sent or is no longer wanted."""
        self._waiting_since.pop(key, None)

    def forget_unwanted(self, ledger: Ledger) -> None:
        """End the waits of what a changed subscription no longer covers."""
        for key in tuple(self._waiting_since):
            if key.type_url == ledger.type_url and not ledger.subscription.covers(key.name):
                self.forget(key)

    def next(self, ledger: Ledger, now: float, splits: bool) -> Plan:
        """Plan the next response of one type; suspects go before the rest and apart from each other."""
        ledger.suspects = [group for group in ledger.suspects if group & ledger.dirty]
        for group in ledger.suspects:
            plan = self._plan(ledger, group & ledger.dirty, now, splits)
            if plan.send or plan.remove:
                ledger.suspects.remove(group)
                return plan
        return self._plan(ledger, ledger.dirty.difference(*ledger.suspects), now, splits)

    def _plan(self, ledger: Ledger, names: Iterable[str], now: float, splits: bool) -> Plan:
        plan = Plan()
        leaving = []
        for name in sorted(names):
            key = ResourceKey(ledger.type_url, name)
            resource = self._visible(key)
            if resource is None:
                leaving.append(key)
            elif _is_current(ledger, resource):
                ledger.settle(name)
                self._waiting_since.pop(key, None)
            elif (gate := self._gate(ledger, resource, plan, now)) is not Gate.OPEN:
                plan.waiting = plan.waiting or gate is Gate.WAITING
            else:
                size = len(resource.body) + len(name) + OVERHEAD_BYTES
                if plan.send and plan.size + size > self._terms.max_response_bytes and splits:
                    break  # the rest stays marked and follows the ACK (X50)
                plan.size += size
                plan.send[name] = resource
        self._plan_removals(ledger, leaving, plan, now)
        return plan

    def _gate(self, ledger: Ledger, resource: Resource, plan: Plan, now: float) -> Gate:
        """Tell whether all that `resource` requires is there, or was waited for long enough (X44).

        While something it requires is refused, a client that has an earlier version keeps that for good: sending the
        new one would direct traffic that works now to nowhere. A client without one has nothing to lose.
        """
        if not self._terms.ordered or not resource.requires:
            return Gate.OPEN
        unmet = ordering.unmet(self._ledgers, resource, self._visible)
        if not unmet:
            return Gate.OPEN
        key = resource.key
        refused = [ordering.refused(self._ledgers, one, self._visible) for one in unmet]
        if key.name in ledger.held and any(refused):
            self._waiting_since.pop(key, None)
            return Gate.WITHHELD
        if all(refused):
            # There is nothing to wait for, and what waits behind it may be another model's.
            plan.late[key.name] = Overdue(key, tuple(sorted(unmet)), now)
            return Gate.OPEN
        deadline = self._waiting_since.setdefault(key, now) + self._terms.timing.make_before_break
        if now < deadline:
            self._wake(deadline)
            return Gate.WAITING
        plan.late[key.name] = Overdue(key, tuple(sorted(unmet)), now)
        return Gate.OPEN

    def _plan_removals(self, ledger: Ledger, leaving: list[ResourceKey], plan: Plan, now: float) -> None:
        """Plan to remove what nothing requires any more (X43), and at once what the client never had (X33)."""
        had = []
        for key in leaving:
            if key.name in ledger.held and self._terms.ordered:
                had.append(key.name)
            elif key.name in ledger.held or key.name in ledger.rejected or key.name in ledger.forced:
                plan.remove[key.name] = ledger.held.get(key.name)
            else:
                ledger.settle(key.name)
                self._waiting_since.pop(key, None)
        if not had or ordering.may_be_required(self._ledgers, ledger.type_url):
            return  # what a client had before it connected, and is unknown to us, may require anything (X39)
        required = ordering.still_required(self._ledgers, ledger.type_url, frozenset(had))
        for name in had:
            held = ledger.held[name]
            if name not in required and self._settled(ledger.type_url, held, now):
                plan.remove[name] = held

    def _settled(self, type_url: str, held: Held, now: float) -> bool:
        """Whether a reconnected client had the time to name what else it has."""
        settled_at = self._opened_at + self._terms.timing.settle
        if held.unknown and now < settled_at and ordering.referrers_unseen(self._ledgers, type_url):
            self._wake(settled_at)
            return False
        return True

    def _wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def _is_current(ledger: Ledger, resource: Resource) -> bool:
    if resource.key.name in ledger.forced:
        return False
    return ledger.has(resource) or ledger.quarantined(resource)
