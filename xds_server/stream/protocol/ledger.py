"""What one client has, awaits and refused of one resource type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from xds_server.snapshot.snapshot import Resource
from xds_server.stream.protocol.holdings import Holdings
from xds_server.stream.protocol.rejections import halves, names_in
from xds_server.stream.protocol.requests import Flight, Held, Rejection
from xds_server.stream.protocol.subscription import NOTHING, Subscription


@dataclass(slots=True)
class Ledger:
    """The books of one (stream, type): the only mutable part of a session.

    `dirty` names are to be looked at, `forced` ones are answered even if nothing changed (X21, X32, X38, X45).
    `reply_due` asks for a response even if it is empty (X31). `suspects` are groups of names that are sent apart from
    each other, since a NACK named none of them. `acknowledged` tells whether the client ever ACKed a response.
    """

    type_url: str
    subscription: Subscription = NOTHING
    held: Holdings = field(default_factory=Holdings)
    flight: Flight | None = None
    dirty: set[str] = field(default_factory=set)
    forced: set[str] = field(default_factory=set)
    reply_due: bool = False
    rejected: dict[str, Rejection] = field(default_factory=dict)
    suspects: list[frozenset[str]] = field(default_factory=list)
    acknowledged: bool = False
    responses: int = 0

    def force(self, names: Iterable[str]) -> None:
        """Have these names answered whether or not they changed."""
        for name in names:
            self.forced.add(name)
            self.dirty.add(name)

    def settle(self, name: str) -> None:
        """Take a name off the list of those to be looked at."""
        self.dirty.discard(name)
        self.forced.discard(name)
        if not self.dirty:
            self.dirty = set()  # to look through an emptied set costs as much as when it was full

    def forget(self, name: str) -> None:
        """Drop all that is known of a name the client no longer wants (X22, X37)."""
        self.settle(name)
        self.held.pop(name, None)
        self.rejected.pop(name, None)

    def change(self, subscription: Subscription) -> None:
        """Install a subscription and forget what it no longer covers."""
        narrowed = self.subscription.wildcard and not subscription.wildcard
        known = {*self.held, *self.rejected, *self.dirty} if narrowed else self.subscription.names - subscription.names
        self.subscription = subscription
        for name in known:
            if not subscription.covers(name):
                self.forget(name)

    def accept(self) -> None:
        """Book the response in flight as ACKed."""
        flight, self.flight = self.flight, None
        if flight is None:
            return
        self.acknowledged = True
        for name, resource in flight.sent.items():
            if name in self.forced and name not in self.held:
                self.held[name] = Held("", None, (resource,))  # given up and asked for again meanwhile
            elif self.subscription.covers(name):
                self.held[name] = Held(resource.version, resource)
            self.rejected.pop(name, None)
        for name in flight.removed:
            self.rejected.pop(name, None)

    def refuse(self, message: str, now: float) -> tuple[Rejection, ...]:
        """Book the response in flight as NACKed; return which resources are to blame, if that is clear.

        Names in the message are the refused ones; a response of one resource needs no name. Otherwise the resources are
        sent again in halves until each is ACKed or refused. Whatever is not to blame is sent again once: Envoy applies
        the good listeners and clusters of a refused response, but stops at the first bad route or assignment.
        """
        flight, self.flight = self.flight, None
        if flight is None or not flight.sent:
            return ()
        blamed = frozenset(flight.sent) if len(flight.sent) == 1 else names_in(message, flight.sent)
        spared = frozenset(flight.sent) - blamed
        if not blamed:
            self.suspects[:0] = halves(spared)
        elif self.suspects and spared:
            self.suspects.insert(0, spared)
        for name, resource in flight.sent.items():
            self._doubt(resource, applied=name in spared)
        self.dirty.update(name for name in spared if self.subscription.covers(name))
        for name, leaving in flight.removed.items():
            self._take_back(name, leaving)
        wanted = sorted(name for name in blamed if self.subscription.covers(name))
        refused = tuple(_rejection(flight.sent[name], message, now) for name in wanted)
        self.rejected.update((rejection.key.name, rejection) for rejection in refused)
        return refused

    def quarantined(self, resource: Resource) -> bool:
        """Whether the client refused exactly this content (X14)."""
        rejection = self.rejected.get(resource.key.name)
        return rejection is not None and rejection.version == resource.version

    def has(self, resource: Resource) -> bool:
        """Whether the client acknowledged exactly this content."""
        held = self.held.get(resource.key.name)
        return held is not None and held.version == resource.version

    def _take_back(self, name: str, leaving: Held | None) -> None:
        """Tell a removal again that came with refused resources; whether it was applied is open."""
        if not self.subscription.covers(name):
            return
        if leaving is None:
            self.force([name])
        else:
            self.held[name] = Held("", None, leaving.contents)
            self.dirty.add(name)

    def _doubt(self, resource: Resource, applied: bool) -> None:
        """Book that the client may have applied this content of a refused response, or surely has not."""
        name = resource.key.name
        held = self.held.get(name)
        if not self.subscription.covers(name) or (held is not None and held.unknown):
            return  # what it came with stays unknown until it accepts something
        others = tuple(other for other in held.maybe if other.version != resource.version) if held is not None else ()
        doubtful = Held("", held.resource if held is not None else None, (*others, resource) if applied else others)
        if doubtful.unknown:
            self.held.pop(name, None)
        else:
            self.held[name] = doubtful


def _rejection(resource: Resource, message: str, now: float) -> Rejection:
    return Rejection(resource.key, resource.version, message, now)
