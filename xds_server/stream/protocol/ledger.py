"""The ledger: what one client asked for, has, was sent and refused of one resource type.

The package's docstring has the states a resource goes through; here is where they are recorded and changed. A ledger
changes by its own methods alone, each of them an event of the protocol. Sessions, dialects and planner read it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set

from xds_server.snapshot.snapshot import Resource, ResourceKey
from xds_server.stream.protocol.holdings import Catalog, Flight, Held, Holdings
from xds_server.stream.protocol.messages import NOTHING, Rejection, Subscription
from xds_server.stream.protocol.openings import Opening
from xds_server.stream.protocol.parts import Parts, batches
from xds_server.stream.protocol.rejections import find_names, halves

_WHOLE_TEXTS = 100
"""While a client refuses so many resources of a type, what it says of each is kept as it is, which is up to 4 KB."""
_LONGEST_FURTHER = 200
"""And so many characters of it for each beyond them: most texts of Envoys have no more."""


class Ledger:
    """The books of one (stream, type).

    `pending` names are to be looked at for the next response; of these, the ones in `_owed` are answered even if
    nothing changed (X21, X32, X38, X45), and those in `_suspects`, groups of names, are sent apart from each other,
    since a NACK named none of them. `reply_due` asks for a response even if it is empty (X31).
    """

    __slots__ = (
        "_answered",
        "_by_name",
        "_flight",
        "_held",
        "_owed",
        "_pending",
        "_rejections",
        "_reply_due",
        "_responses",
        "_subscription",
        "_suspects",
        "type_url",
    )

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self._subscription = NOTHING
        self._held = Holdings()
        self._by_name = self._held.by_name
        self._flight: Flight | None = None
        self._pending: set[str] = set()
        self._owed: set[str] = set()
        self._reply_due = False
        self._rejections: dict[str, Rejection] = {}
        self._suspects: list[frozenset[str]] = []
        self._answered = False
        self._responses = 0

    # What may be read.

    @property
    def subscription(self) -> Subscription:
        """What the client asked for."""
        return self._subscription

    @property
    def held(self) -> Mapping[str, Held]:
        """What the client has, by name."""
        return self._by_name

    @property
    def flight(self) -> Flight | None:
        """The response that the client has not answered yet."""
        return self._flight

    @property
    def pending(self) -> Set[str]:
        """The names to be looked at for the next response."""
        return self._pending

    @property
    def rejections(self) -> Mapping[str, Rejection]:
        """What the client refused, by name, as long as it accepted nothing else of that name (X15)."""
        return self._rejections

    @property
    def reply_due(self) -> bool:
        """Whether the next response goes out even if it is empty."""
        return self._reply_due

    @property
    def answered(self) -> bool:
        """Whether the client ever ACKed or NACKed a response, or came with everything."""
        return self._answered

    @property
    def may_send(self) -> bool:
        """Whether there may be something to send, and the client answered what it was sent before (X48)."""
        return self._flight is None and bool(self._pending or self._reply_due)

    @property
    def responses(self) -> int:
        """The number of responses so far."""
        return self._responses

    @property
    def has_unknown(self) -> bool:
        """Whether nothing is known of the content of something the client has."""
        return self._held.has_unknown

    @property
    def required(self) -> Collection[ResourceKey]:
        """What something the client has, or may have, requires."""
        return self._held.required

    def has_all(self, names: Set[str]) -> bool:
        """Whether the client ACKed the current content of all of these, which are all there are."""
        at_rest = self._flight is None and not (self._pending or self._rejections) and self._held.all_acknowledged
        return at_rest and names <= self._by_name.keys()

    @property
    def has_nothing(self) -> bool:
        """Whether the client has nothing, and refused nothing."""
        return not (self._by_name or self._rejections or self._suspects)

    def lacks_all(self, names: Set[str]) -> bool:
        """Whether these are the names to be looked at, of which the client has nothing."""
        return self.has_nothing and self._pending == names

    def has_some_of_each(self, names: Set[str]) -> bool:
        """Whether the client has all of these for sure, in whatever version."""
        return self._held.all_acknowledged and names <= self._by_name.keys()

    def wants(self, name: str) -> bool:
        """Whether the client asks for the resource of this name, should it exist."""
        return self._subscription.wildcard or name in self._subscription.names

    def find(self, name: str) -> Held | None:
        """Return what the client has of this name."""
        return self._by_name.get(name)

    def owes(self, name: str) -> bool:
        """Whether this name is answered even if nothing changed."""
        return name in self._owed

    def owed_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of some names that are answered even if nothing changed."""
        owed = self._owed
        return tuple([name for name in names if name in owed])

    def quarantines(self, resource: Resource) -> bool:
        """Whether the client refused exactly this content (X14)."""
        rejection = self._rejections.get(resource.key.name)
        return rejection is not None and rejection.version == resource.version

    def is_current(self, resource: Resource) -> bool:
        """Whether there is nothing to send: the client ACKed exactly this content, or refused it."""
        name = resource.key.name
        if name in self._owed:
            return False
        held = self._by_name.get(name)
        return (held is not None and held.version == resource.version) or self.quarantines(resource)

    @property
    def opening(self) -> Opening:
        """What the first request of this type made of it."""
        held, pending, owed = self._held.copy(), frozenset(self._pending), frozenset(self._owed)
        return Opening(self._subscription, held, pending, owed, self._reply_due)

    # What the client says.

    def open(self, opening: Opening) -> None:
        """Believe and note what another client's first request came to; nothing was said of this type before."""
        self._subscription, self._reply_due = opening.subscription, opening.reply_due
        self._held, self._pending, self._owed = opening.held.copy(), set(opening.pending), set(opening.owed)
        self._by_name = self._held.by_name

    def subscribe(self, subscription: Subscription) -> Parts[None]:
        """Install what the client asks for from now on, and forget what that no longer covers (X22, X37)."""
        before, self._subscription = self._subscription, subscription
        narrowed = before.wildcard and not subscription.wildcard
        known = {*self._held, *self._rejections, *self._pending} if narrowed else before.names - subscription.names
        for names in batches(known):
            unwanted = [name for name in names if not subscription.covers(name)]
            for name in unwanted:
                self._held.discard(name)
                self._rejections.pop(name, None)
            self.skip(unwanted)
            yield

    def claim_all(self, claimed: Mapping[str, str], catalog: Catalog) -> Set[str]:
        """Believe the client that it has what is current of this, if it is most of all there is; return which names.

        The rest of what it claims is for `claim`.
        """
        if not self.has_nothing:
            return frozenset()
        versions: Set[tuple[str, str]] = catalog.versions.items()
        said = claimed.items()
        current = claimed.keys() if said <= versions else {name for name, _ in said & versions}
        if 2 * len(current) < len(catalog.names) or not self._covers_all(current):
            return frozenset()
        self._held.fill(catalog, without=catalog.names - current)
        self._pending.difference_update(current)
        return current

    def claim(self, name: str, version: str, current: Resource | None) -> None:
        """Believe the client that it has this version from an earlier stream (X39); what exists now is `current`."""
        known = current is not None and current.version == version
        self._held[name] = Held(version, current if known else None)
        if known:
            self._pending.discard(name)
        else:
            self._pending.add(name)

    def claim_unknown(self, versions: Iterable[tuple[str, str]]) -> None:
        """Believe the client that it has these versions of what is not there now; nothing was known of these names."""
        claimed = dict(versions)
        self._held.claim_unknown(claimed)
        self._pending.update(claimed)

    def adopt(self, resources: Mapping[str, Resource]) -> None:
        """Believe a client that it has all of these, from an earlier stream, and needs no answer (X10)."""
        self._held.update((name, Held(resource.version, resource)) for name, resource in resources.items())
        self._answered = True

    def acknowledge(self) -> Parts[frozenset[ResourceKey]]:
        """Book the response in flight as ACKed; return what it was about."""
        flight = self._flight
        if flight is None:
            return frozenset()
        self._answered = True
        catalog = flight.catalog
        if catalog and self.has_nothing and not self._owed and self._covers_all(catalog.names):
            self._held.fill(catalog)
            self._flight = None
            return catalog.keys
        keys = set[ResourceKey]()
        for sent in batches(flight.sent.items()):
            for name, resource in sent:
                if name in self._owed and name not in self._held:
                    self._held[name] = Held("", None, (resource,))  # given up and asked for again meanwhile
                elif self._subscription.covers(name):
                    self._held[name] = Held(resource.version, resource)
                self._rejections.pop(name, None)
                keys.add(resource.key)
            yield
        for removed in batches(flight.removed):
            for name in removed:
                self._rejections.pop(name, None)
                keys.add(ResourceKey(self.type_url, name))
            yield
        self._flight = None
        return frozenset(keys)

    def refuse(self, message: str, now: float) -> Parts[tuple[Rejection, ...]]:
        """Book the response in flight as NACKed; return which resources are to blame, if that is clear.

        Names in the message are the refused ones; a response of one resource needs no name. Otherwise the resources are
        sent again in halves until each is ACKed or refused. Whatever is not to blame is sent again once: Envoy applies
        the good listeners and clusters of a refused response, but stops at the first bad route or assignment.
        """
        flight = self._flight
        if flight is None:
            return ()
        self._answered = True
        if not flight.sent:
            self._flight = None
            return ()
        blamed = frozenset(flight.sent) if len(flight.sent) == 1 else (yield from find_names(message, flight.sent))
        spared = frozenset(flight.sent) - blamed
        if not blamed:
            self._suspects[:0] = halves(spared)
        elif self._suspects and spared:
            self._suspects.insert(0, spared)
        for sent in batches(flight.sent.items()):
            for name, resource in sent:
                self._doubt(resource, applied=name in spared)
            yield
        for names in batches(spared):
            self._pending.update(name for name in names if self._subscription.covers(name))
            yield
        for removed in batches(flight.removed.items()):
            for name, leaving in removed:
                self._take_back(name, leaving)
            yield
        self._flight = None
        wanted = sorted(name for name in blamed if self._subscription.covers(name))
        text = message if len(self._rejections) < _WHOLE_TEXTS else message[:_LONGEST_FURTHER]
        refused = tuple(_rejection(flight.sent[name], text, now) for name in wanted)
        self._rejections.update((rejection.key.name, rejection) for rejection in refused)
        return refused

    # What happens here.

    def change(self, name: str) -> bool:
        """Note that the snapshot has something else under this name; return whether the client wants to know."""
        wanted = self._subscription.wildcard or name in self._subscription.names
        if wanted:
            self._pending.add(name)
        return wanted

    def mark(self, names: Iterable[str]) -> None:
        """Have these names looked at for the next response; what the client has already is not sent again."""
        self._pending.update(names)

    def resend(self, names: Iterable[str]) -> None:
        """Have these names answered whether or not they changed."""
        for name in names:
            self._owed.add(name)
            self._pending.add(name)

    def owe_reply(self) -> None:
        """Have the next response go out even if it is empty."""
        self._reply_due = True

    def groups(self) -> Iterator[Set[str]]:
        """Yield pending names group by group; each response is about one group, those under suspicion first."""
        self._suspects = [group for group in self._suspects if group & self._pending]
        for group in self._suspects:
            yield group & self._pending
        yield self._pending.difference(*self._suspects)

    def send(self, flight: Flight) -> Parts[None]:
        """Book a response that leaves now."""
        self._responses += 1
        self._reply_due = False
        self._flight = flight
        for names in batches(flight.removed):
            for name in names:
                self._held.discard(name)
            yield
        self._conclude((*flight.sent, *flight.removed))

    def skip(self, names: Collection[str]) -> None:
        """Take names off the list of those to be looked at."""
        self._pending.difference_update(names)
        self._owed.difference_update(names)
        if not self._pending:
            self._pending = set()  # to look through an emptied set costs as much as when it was full

    def retain(self, names: Collection[str]) -> None:
        """Note that these no longer exist; the client retains them, since its dialect cannot take them away (X24)."""
        for name in names:
            self._rejections.pop(name, None)
        self._conclude(names)

    def retry(self, name: str) -> None:
        """Lift the quarantine of a resource that was refused because it came before what it requires."""
        del self._rejections[name]
        self._pending.add(name)

    def invalidate(self, name: str) -> None:
        """Note that the client may have dropped this by itself, so that nothing may rely on it until it is ACKed."""
        held = self._by_name.get(name)
        if held is not None and held.resource is not None:
            self._held[name] = Held("", None, held.contents)

    def _conclude(self, names: Collection[str]) -> None:
        """Take off the list what a plan was about; the group it was about is no longer a group."""
        self.skip(names)
        if self._suspects:
            self._suspects = [group for group in self._suspects if group.isdisjoint(names)]

    def _covers_all(self, names: Set[str]) -> bool:
        return self._subscription.wildcard or names <= self._subscription.names

    def _take_back(self, name: str, leaving: Held | None) -> None:
        """Have a removal sent again that came with refused resources; whether it was applied is open."""
        if not self._subscription.covers(name):
            return
        if leaving is None:
            self.resend([name])
        else:
            self._held[name] = Held("", None, leaving.contents)
            self._pending.add(name)

    def _doubt(self, resource: Resource, applied: bool) -> None:
        """Book that the client may have applied this content of a refused response, or surely has not."""
        name = resource.key.name
        held = self._by_name.get(name)
        if not self._subscription.covers(name) or (held is not None and held.unknown):
            return  # what it came with stays unknown until it accepts something
        others = tuple(other for other in held.maybe if other.version != resource.version) if held is not None else ()
        doubtful = Held("", held.resource if held is not None else None, (*others, resource) if applied else others)
        if doubtful.unknown:
            self._held.discard(name)
        else:
            self._held[name] = doubtful


def _rejection(resource: Resource, message: str, now: float) -> Rejection:
    return Rejection(resource.key, resource.version, message, now)
