"""The protocol with one client on one stream, without I/O: what both dialects, delta and state of the world, share.

Per type there is at most one response that the client has not answered (X48); what changes meanwhile is only marked, so
that intermediate states coalesce and the newest wins. A step looks at the marked names alone: one change costs the same
whether there are ten models or a thousand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from xds_server.snapshot.snapshot import CLUSTER, MAKE_BEFORE_BREAK, SECRET, SHORT, Resource, ResourceKey, Snapshot
from xds_server.stream.protocol import ordering
from xds_server.stream.protocol.ledger import Ledger
from xds_server.stream.protocol.plan import Plan, Planner
from xds_server.stream.protocol.requests import Answer, Flight, Held, Output, Overdue, Rejection, Response, Terms
from xds_server.stream.protocol.subscription import Subscription


class Session(ABC):
    """One client. Feed it with `receive` (of the dialect), `publish` and `tick`; act on the Output each returns."""

    def __init__(self, snapshot: Snapshot, terms: Terms, now: float) -> None:
        self._snapshot = snapshot
        self._terms = terms
        self._ledgers: dict[str, Ledger] = {}
        self._overdue: dict[ResourceKey, Overdue] = {}
        self._early: set[ResourceKey] = set()  # sent like that, and not taken yet
        self._planner = Planner(terms, self._ledgers, self._visible, now)
        self._answered: Answer | None = None
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
        return self._advance(now) if touched else Output(wake_at=self._planner.wake_at)

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
        self._planner.forget_unwanted(ledger)

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
        self._answered = Answer(ledger.type_url, error is None)
        flight = ledger.flight
        if ledger.type_url == CLUSTER:
            for leaving in flight.removed.values():
                self._drop_endpoints(leaving)
        if error is not None:
            self._rejected += ledger.refuse(error, now)
            return
        ledger.accept()
        self._acknowledged.update(ResourceKey(ledger.type_url, name) for name in (*flight.sent, *flight.removed))

    def _send_endpoints_again(self, cluster: Resource) -> None:
        """Envoy warms a changed cluster until it gets its assignment once more, changed or not (X45)."""
        for key in ordering.assignments_of(cluster):
            endpoints = self._ledgers.get(key.type_url)
            if endpoints is not None and endpoints.subscription.covers(key.name):
                endpoints.force([key.name])

    def _drop_endpoints(self, cluster: Held | None) -> None:
        """Envoy drops the assignment with its cluster; should the cluster come back, routes wait for a new one."""
        if cluster is None or cluster.resource is None:
            return
        for key in ordering.assignments_of(cluster.resource):
            endpoints = self._ledgers.get(key.type_url)
            held = endpoints.held.get(key.name) if endpoints is not None else None
            if endpoints is not None and held is not None and held.resource is not None:
                endpoints.held[key.name] = Held("", None, held.contents)

    def _advance(self, now: float) -> Output:
        """Send what can be sent, in make-before-break order, and say what became known since the last step."""
        self._try_again()
        responses = []
        self._planner.wake_at = None
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
            self._planner.wake_at,
            self._answered,
            frozenset(self._acknowledged),
            tuple(self._rejected),
            tuple(self._expired),
        )
        self._answered = None
        self._acknowledged.clear()
        self._rejected.clear()
        self._expired.clear()
        return output

    def _next_response(self, ledger: Ledger, now: float) -> Response | None:
        plan = self._planner.next(ledger, now, self._splits(ledger))
        if ledger.reply_due and plan.waiting:
            return None  # a first answer is complete, or the client takes itself for initialised
        if not (plan.send or plan.remove or ledger.reply_due):
            return None
        response = self._response(ledger, plan)
        if not self._removes(ledger):
            for name in plan.remove:
                ledger.rejected.pop(name, None)
        for name in (*plan.send, *plan.remove):
            ledger.settle(name)
            self._planner.forget(ResourceKey(ledger.type_url, name))
        for late in plan.late.values():
            self._overdue[late.key] = late
            self._early.add(late.key)
            self._expired.append(late)
        if response is not None:
            ledger.reply_due = False
            removed = plan.remove if self._removes(ledger) else {}
            ledger.flight = Flight(response.nonce, plan.send, removed)
            if ledger.type_url == CLUSTER:
                # Now and not with the ACK: Envoy ACKs clusters once they are warm (envoyproxy/envoy#23321).
                for cluster in plan.send.values():
                    self._send_endpoints_again(cluster)
            for name in removed:
                ledger.held.pop(name, None)
        return response

    def _nonce(self, ledger: Ledger) -> str:
        ledger.responses += 1
        kind = SHORT.get(ledger.type_url, ledger.type_url)
        return f"{self._terms.nonce_prefix}{kind}-{ledger.responses}"

    def _try_again(self) -> None:
        """Send what was refused when it came before what it requires once more, as soon as all of that is there.

        Elsewhere the same content is not sent again (X14); here the refusal was of the moment, and nothing else would
        ever end it.
        """
        for key in tuple(self._early):
            ledger, resource = self._ledgers[key.type_url], self._visible(key)
            if ledger.flight is not None and key.name in ledger.flight.sent:
                continue  # its answer is still to come
            if resource is None or not ledger.quarantined(resource):
                self._early.discard(key)
            elif not ordering.unmet(self._ledgers, resource, self._visible):
                self._early.discard(key)
                del ledger.rejected[key.name]
                ledger.dirty.add(key.name)

    def _drop_caught_up(self) -> None:
        for key in tuple(self._overdue):
            resource = self._visible(key)
            if resource is None or not ordering.unmet(self._ledgers, resource, self._visible):
                del self._overdue[key]
