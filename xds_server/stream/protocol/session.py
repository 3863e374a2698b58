"""One client on one stream: what both dialects share, without I/O.

A session holds a ledger a type, hands each event to the one that it is about, and then sends what can be sent: at most
one response a type that the client has not answered (X48). What changes meanwhile is only marked, so that states in
between coalesce and the newest wins. A step looks at the marked names alone: one change costs the same whether there
are ten models or a thousand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from itertools import islice

from xds_server.snapshot.snapshot import (
    CLUSTER,
    ENDPOINT,
    MAKE_BEFORE_BREAK,
    SHORT,
    Resource,
    ResourceKey,
    Snapshot,
    SnapshotView,
)
from xds_server.stream.protocol import ordering
from xds_server.stream.protocol.holdings import Catalog, Flight, Held, catalog_of
from xds_server.stream.protocol.ledger import Ledger
from xds_server.stream.protocol.messages import (
    ClientAnswer,
    ClientTerms,
    DeltaRequest,
    Output,
    Overdue,
    Rejection,
    Response,
    SotwRequest,
    Subscription,
    TooManyNamesError,
)
from xds_server.stream.protocol.parts import MANY, Parts, batches

_MUCH_REFUSED = 250
"""Resources in a response, each of which is looked for in the text of a NACK: some ten microseconds each."""
_MANY_EARLY = 500
"""Resources that were sent before what they require, of which each is looked for: some microseconds."""
_MOST_TOLD = 20
"""Of what a client refused, or was sent too early, in what is told of it: that is told again after each step."""


class Session(ABC):
    """One client. Feed it with `receive` (of the dialect), `publish` and `tick`; act on the Output each returns."""

    def __init__(self, snapshot: Snapshot, terms: ClientTerms, now: float) -> None:
        # The planner has this in common with the session, and not the session: that would be a circle, which keeps
        # what the client has until Python looks for garbage.
        self._view = SnapshotView(snapshot, terms.secrets)
        self._terms = terms
        self._ledgers: dict[str, Ledger] = {}
        self._in_order: tuple[Ledger, ...] = ()  # make before break
        self._overdue: dict[ResourceKey, Overdue] = {}
        self._early: set[ResourceKey] = set()  # sent before what they require, and not ACKed yet
        self._planner = ordering.ResponsePlanner(terms, self._ledgers, self._view, now)
        self._answer: ClientAnswer | None = None
        self._acknowledged: set[ResourceKey] = set()
        self._rejected: list[Rejection] = []
        self._expired: list[Overdue] = []

    # What others may ask.

    @property
    def types(self) -> tuple[str, ...]:
        """The types the client asked for so far."""
        return tuple(self._ledgers)

    def takes_long(self, request: DeltaRequest | SotwRequest) -> bool:
        """Whether others go on while a request is taken: it says much, answers much, or much is due behind it."""
        return self._says_much(request) or self._books_much_for(request) or self._due(request.type_url) > MANY

    @property
    def much_is_due(self) -> bool:
        """Whether the next step looks at so much that others go on meanwhile."""
        return self._due() > MANY

    def _says_much(self, request: DeltaRequest | SotwRequest) -> bool:
        return request.is_long

    def _due(self, answered: str = "") -> int:
        """Count the names to be looked at: of types without an unanswered response, and of the one `answered` now."""
        ledgers = self._in_order
        return sum(len(one.pending) for one in ledgers if one.flight is None or one.type_url == answered)

    def _books_much_for(self, request: DeltaRequest | SotwRequest) -> bool:
        """Whether it is the ACK or NACK of so much that to book it takes some milliseconds."""
        ledger = self._ledgers.get(request.type_url)
        flight = ledger.flight if ledger is not None else None
        if flight is None:
            return False
        if request.error is not None:
            return len(flight.sent) > _MUCH_REFUSED
        return flight.catalog is None and len(flight.sent) + len(flight.removed) > MANY

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """Twenty, at most, of the resource versions the client refused and that are still current for it (X15)."""
        return tuple(islice((r for ledger in self._ledgers.values() for r in ledger.rejections.values()), _MOST_TOLD))

    @property
    def overdue(self) -> tuple[Overdue, ...]:
        """Twenty, at most, of what was sent although the client has not yet ACKed all that it requires."""
        return tuple(islice(self._overdue.values(), _MOST_TOLD))

    @property
    def initialised(self) -> bool:
        """Whether the client ACKed or NACKed an answer to each of its wildcards, or to anything if it has none.

        One that comes back may be sent nothing but what it refuses, and is in use all the same.
        """
        ledgers = self._ledgers.values()
        wildcards = [ledger for ledger in ledgers if ledger.subscription.wildcard]
        return any(ledger.answered for ledger in ledgers) and all(ledger.answered for ledger in wildcards)

    def rejection(self, key: ResourceKey) -> Rejection | None:
        """Return how the client refused a version of the resource that is still current for it."""
        ledger = self._ledgers.get(key.type_url)
        return ledger.rejections.get(key.name) if ledger is not None else None

    def holds(self, key: ResourceKey, version: str) -> bool:
        """Whether the client ACKed this version of the resource and was not given another since."""
        ledger = self._ledgers.get(key.type_url)
        held = ledger.find(key.name) if ledger is not None else None
        return held is not None and held.version == version

    def has_all(self, snapshot: Snapshot, changed: Collection[ResourceKey] | None = None) -> bool:
        """Whether the client ACKed all of a snapshot: `holds`, for all at once.

        `changed` are the keys that may differ from a snapshot that it had all of, and since when it asked for nothing
        else: of thousands of resources, then, only these are looked at. None: it is not known.
        """
        if self._view.snapshot is not snapshot:
            return False
        names: dict[str, set[str]] = {}
        for key in changed or ():
            if snapshot.find(key):
                names.setdefault(key.type_url, set()).add(key.name)
        for type_url, resources in snapshot.by_type.items():
            ledger = self._ledgers.get(type_url)
            wanted = resources.derived(frozenset) if changed is None else names.get(type_url, frozenset())
            if resources and (ledger is None or not ledger.has_all(wanted)):
                return False
        return True

    # What happens.

    def publish(self, snapshot: Snapshot, changed: Iterable[ResourceKey], now: float) -> Parts[Output]:
        """Serve a new snapshot; `changed` are all keys that differ from the one before, removed ones included."""
        self._view.snapshot = snapshot
        touched = False
        for key in changed:
            ledger = self._ledgers.get(key.type_url)
            if ledger is not None and ledger.change(key.name):
                touched = True
        if touched:
            return (yield from self._advance(now))
        return Output(wake_at=self._planner.wake_at)

    def tick(self, now: float) -> Parts[Output]:
        """Let waits run out."""
        return self._advance(now)

    # For the dialects.

    @abstractmethod
    def _response(self, ledger: Ledger, plan: ordering.ResponsePlan) -> Response | None:
        """Say what the plan looks like on the wire, None if nothing is said."""

    @abstractmethod
    def _splits(self, ledger: Ledger) -> bool:
        """Whether a response of this type may leave for the next one what would make it too large."""

    @abstractmethod
    def _removes(self, ledger: Ledger) -> bool:
        """Whether a response of this type can take a resource away."""

    def _book_answer(self, request: DeltaRequest | SotwRequest, now: float) -> Parts[tuple[Ledger, bool]]:
        """Book the ACK or NACK in a request; return the ledger of its type, and whether it is the first of that."""
        ledger = self._ledgers.get(request.type_url)
        if ledger is None:
            ledger = self._ledgers[request.type_url] = Ledger(request.type_url)
            known = [self._ledgers[one] for one in MAKE_BEFORE_BREAK if one in self._ledgers]
            self._in_order = (*known, *(one for one in self._ledgers.values() if one.type_url not in SHORT))
            return ledger, True  # a nonce in a first request is that of another stream (X05)
        flight = ledger.flight
        if flight is None or request.nonce != flight.nonce:
            return ledger, False  # it answers nothing that waits for an answer (X04, X26, X40)
        self._answer = ClientAnswer(ledger.type_url, request.error is None)
        if ledger.type_url == CLUSTER:
            for leaving in flight.removed.values():
                self._lose_endpoints(leaving)
        if request.error is None:
            self._acknowledged |= yield from ledger.acknowledge()
        else:
            self._rejected += yield from ledger.refuse(request.error, now)
        return ledger, False

    def _subscribe(self, ledger: Ledger, subscription: Subscription) -> Parts[None]:
        """Install a subscription; waits for what it no longer covers are over. Raises TooManyNamesError."""
        if len(subscription.names) > self._terms.max_names:
            raise TooManyNamesError(
                f"{len(subscription.names)} names of one type; at most {self._terms.max_names} are taken"
            )
        yield from ledger.subscribe(subscription)
        self._planner.forget_unwanted(ledger)

    def _visible_names(self, type_url: str) -> Iterable[str]:
        catalog = self._catalog(type_url)
        return catalog.names if catalog is not None else ()

    def _catalog(self, type_url: str) -> Catalog | None:
        resources = self._view.of_type(type_url)
        return None if resources is None else resources.derived(catalog_of)

    def _nonce(self, ledger: Ledger) -> str:
        """Return the nonce of the next response: unique on this stream, and unlike those of any other (X05)."""
        kind = SHORT.get(ledger.type_url, ledger.type_url)
        return f"{self._terms.nonce_prefix}{kind}-{ledger.responses + 1}"

    def _advance(self, now: float) -> Parts[Output]:
        """Send what can be sent, in make-before-break order."""
        yield from self._try_again()
        responses = []
        self._planner.wake_at = None
        for ledger in self._in_order:
            if ledger.may_send:
                response = yield from self._next_response(ledger, now)
                if response is not None:
                    responses.append(response)
        yield from self._drop_caught_up()
        return self._told(tuple(responses))

    def _told(self, responses: tuple[Response, ...]) -> Output:
        """Say what became known since the last step, beside these responses."""
        output = Output(
            responses,
            self._planner.wake_at,
            self._answer,
            frozenset(self._acknowledged),
            tuple(self._rejected),
            tuple(self._expired),
        )
        self._answer = None
        self._acknowledged.clear()
        self._rejected.clear()
        self._expired.clear()
        return output

    def _next_response(self, ledger: Ledger, now: float) -> Parts[Response | None]:
        catalog = self._catalog(ledger.type_url) if ledger.has_nothing else None
        everything = self._planner.plan_all(ledger, catalog) if catalog is not None else None
        plan = everything or (yield from self._planner.plan(ledger, now, self._splits(ledger)))
        if plan.idle:
            ledger.skip(plan.idle)
        if ledger.reply_due and plan.waiting:
            return None  # a first answer is complete, or the client takes itself for initialised
        if not (plan.send or plan.remove or ledger.reply_due):
            return None
        response = self._response(ledger, plan)
        removed = plan.remove
        if not self._removes(ledger):
            ledger.retain(plan.remove)
            removed = {}
        if response is not None:
            yield from ledger.send(Flight(response.nonce, plan.send, removed, plan.catalog))
        yield from self._note_sent(ledger, plan)
        return response

    def _note_sent(self, ledger: Ledger, plan: ordering.ResponsePlan) -> Parts[None]:
        """Do for other types, and for waits, what follows from a response."""
        if self._planner.waits:
            for names in batches((*plan.send, *plan.remove)):
                for name in names:
                    self._planner.forget(ResourceKey(ledger.type_url, name))
                yield
        for late in plan.late.values():
            self._overdue[late.key] = late
            self._early.add(late.key)
            self._expired.append(late)
        if CLUSTER not in self._ledgers:
            self._early.update(
                one.key for one in plan.send.values() if ordering.comes_before_its_type(self._ledgers, one)
            )
        if ledger.type_url == CLUSTER and ENDPOINT in self._ledgers:
            # Now and not with the ACK: Envoy ACKs clusters once they are warm (envoyproxy/envoy#23321).
            for clusters in batches(plan.send.values()):
                for cluster in clusters:
                    self._send_endpoints_again(cluster)
                yield

    def _send_endpoints_again(self, cluster: Resource) -> None:
        """Envoy warms a changed cluster until it gets its assignment once more, changed or not (X45)."""
        for key in ordering.assignments_of(cluster):
            endpoints = self._ledgers.get(key.type_url)
            if endpoints is not None and endpoints.wants(key.name):
                endpoints.resend([key.name])

    def _lose_endpoints(self, cluster: Held | None) -> None:
        """Envoy drops the assignment with its cluster; should the cluster come back, routes wait for a new one."""
        if cluster is None or cluster.resource is None:
            return
        for key in ordering.assignments_of(cluster.resource):
            endpoints = self._ledgers.get(key.type_url)
            if endpoints is not None:
                endpoints.invalidate(key.name)

    def _try_again(self) -> Parts[None]:
        """Send what was refused when it came before what it requires once more, as soon as all of that is there.

        Elsewhere the same content is not sent again (X14); here the refusal was of the moment, and nothing else would
        ever end it.
        """
        for keys in batches(tuple(self._early), _MANY_EARLY):
            for key in keys:
                self._try_one_again(key)
            yield

    def _try_one_again(self, key: ResourceKey) -> None:
        ledger, resource = self._ledgers[key.type_url], self._view.find(key)
        if ledger.flight is not None and key.name in ledger.flight.sent:
            return  # its answer is still to come
        if resource is None or not ledger.quarantines(resource):
            self._early.discard(key)
        elif not (
            ordering.comes_before_its_type(self._ledgers, resource)
            or ordering.unmet(self._ledgers, resource, self._view.find)
        ):
            self._early.discard(key)
            ledger.retry(key.name)

    def _drop_caught_up(self) -> Parts[None]:
        for keys in batches(tuple(self._overdue), _MANY_EARLY):
            for key in keys:
                resource = self._view.find(key)
                if resource is None or not ordering.unmet(self._ledgers, resource, self._view.find):
                    del self._overdue[key]
            yield
