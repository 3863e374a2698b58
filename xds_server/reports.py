"""What this replica of the xDS server reports of its routes, and the readers that follow it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Protocol

from controller.api.contract.reports import EntranceReport, RemoteReport, RouteReport, ServerReport
from controller.api.contract.route import Remote, Route, RouteKey
from controller.api.timing import REAL, ReportTiming
from xds_server.loads.loads import LoadReader, Loads
from xds_server.routes.credentials import ServingProblem
from xds_server.routes.entrance import EntranceProblem
from xds_server.routes.shadow_mode import ShadowedProblem
from xds_server.routes.translation import NOT_TRANSLATED
from xds_server.routes.validation import REFUSED
from xds_server.snapshot.snapshot import SECRET, SHORT, ResourceKey
from xds_server.stream.admission import host_of
from xds_server.stream.protocol.messages import Rejection
from xds_server.stream.server.clients import ClientState, Progress

_CHECKS_AT_ONCE = 5_000
"""Of an Envoy for a route, before others have their turn: a few milliseconds."""
_CHECKS_OF_A_REPORT = 25
"""It takes as long as so many of them to make a report, whoever is asked."""
_CHECKS_OF_WHO_REFUSES = 10
"""And to ask one that refuses anything what it refuses of a route."""
_REST = 9
"""Times as long as looking took, until a reader looks again: with many Envoys, reports are late rather than Envoys."""

# Envoys that a replica says it has, by name: more take more time to write each second than anybody has gateways.
_MOST_NAMES = 500

# Envoys that are named, of all that have not acknowledged a route: as many as somebody would look at.
_NAMED = 3

# Refusals that are told of a route, and their characters in all: about as much as a condition has room for.
_MOST_REFUSALS, _LONGEST_REFUSALS = 10, 3_000


class PublishedRoutes(Protocol):
    """What is published: see `Publisher`."""

    def routes(self) -> Iterable[RouteKey]:
        """List the routes that are published."""

    def route(self, key: RouteKey) -> Route | None:
        """Return a route as it was last published."""

    def versions(self, key: RouteKey) -> Iterable[tuple[ResourceKey, str]]:
        """List what was last published for a route."""

    def problems(self, key: RouteKey) -> tuple[ServingProblem, ...]:
        """Say what could not be resolved for a route."""


class ConnectedClients(Protocol):
    """Who was sent what: see `XdsServer`."""

    def progress(self) -> Progress:
        """Return how far the clients are with what is published."""

    def refused(self) -> str:
        """Say what is wrong with a client that comes and does not count; empty if there is none."""


class RemoteReports(Protocol):
    """The health of remote backends: see `HealthChecks`."""

    def report(self, key: RouteKey, remote: Remote) -> RemoteReport | None:
        """Report on a remote backend of a route; None when nobody checks it."""


class _Unchecked:
    def report(self, key: RouteKey, remote: Remote) -> RemoteReport | None:
        return None


UNCHECKED: RemoteReports = _Unchecked()
"""No remote backend is checked."""


class Reports:
    """The reports of this replica, as things are now, and the readers that follow them."""

    def __init__(
        self,
        published: PublishedRoutes,
        clients: ConnectedClients,
        loads: Loads | None = None,
        remotes: RemoteReports = UNCHECKED,
        timing: ReportTiming = REAL.reports,
    ) -> None:
        self.timing = timing
        self.ports: tuple[int, ...] = ()
        """Those on which nothing is served, since programs of the gateway listen there."""
        self._published = published
        self._clients = clients
        self._loads = loads or Loads()
        self._remotes = remotes
        self._readers: weakref.WeakSet[ReportReader] = weakref.WeakSet()  # One that nobody holds needs nothing.
        self._known: dict[RouteKey, RouteReport] = {}
        self._seen: Progress | None = None
        self._loads.subscribe(self._loads_changed)

    def report(self, key: RouteKey) -> RouteReport:
        """Report on one route; debug clients, strangers and those that just joined do not count."""
        return self._report(key, self._clients.progress().of(_counts))

    def known(self, key: RouteKey) -> RouteReport:
        """Report on one route as it was when something last changed for it: it is made once for all readers."""
        known = self._known.get(key)
        if known is None:
            known = self._report(key, self._envoys())
            if known.route:
                self._known[key] = known
        return known

    @property
    def at_once(self) -> int:
        """How many reports take a moment: each asks all Envoys that do not have everything."""
        others = self._envoys().others
        refusing = sum(1 for client, _ in others if client.rejections)
        checks = len(others) + _CHECKS_OF_WHO_REFUSES * refusing + _CHECKS_OF_A_REPORT
        return max(1, _CHECKS_AT_ONCE // checks)

    def _report(self, key: RouteKey, envoys: Progress) -> RouteReport:
        route = self._published.route(key)
        if route is None:
            return RouteReport(kind=key.kind, namespace=key.namespace, name=key.name, connected=len(envoys.every))
        versions = tuple(self._published.versions(key))
        lacking = envoys.lacking(versions)
        keys = tuple(one for one, _ in versions)
        problems = self._published.problems(key)
        entrance = tuple(one for one in problems if isinstance(one, EntranceProblem))
        shadowed = tuple(one for one in problems if isinstance(one, ShadowedProblem))
        others = tuple(one for one in problems if not isinstance(one, (EntranceProblem, ShadowedProblem)))
        not_served = (
            *(one.message for one in others if one.reason in (NOT_TRANSLATED, REFUSED)),
            *(one.message for one in entrance if one.closes),
        )
        unusable = tuple(one for one in others if one.reason not in (NOT_TRANSLATED, REFUSED))
        return RouteReport(
            kind=key.kind,
            namespace=key.namespace,
            name=key.name,
            route=route.digest,
            connected=len(envoys.every),
            programmed=len(envoys.every) - len(lacking),
            refusals=(*not_served, *_without_secrets(lacking, keys), *_refused(envoys.refusals(keys))),
            waiting=tuple(sorted({client.node_id for client in lacking})[:_NAMED]),
            remotes=(
                *(one for remote in route.remotes if (one := self._remote(key, remote, unusable))),
                *(_not_usable(one.remote, (one,)) for one in shadowed),
            ),
            entrance=tuple(EntranceReport(reason=one.reason, message=one.message) for one in entrance),
        )

    def _remote(self, key: RouteKey, remote: Remote, unusable: tuple[ServingProblem, ...]) -> RemoteReport | None:
        """Report on a remote backend. What one of a route lacks keeps requests from all of them, unchecked."""
        if not unusable:
            return self._remotes.report(key, remote)
        return _not_usable(remote, unusable)

    def replica(self, now: float) -> ServerReport:
        """Report on this replica as a whole; `now` is of the steady clock of the loads."""
        clients = self._envoys().clients
        nodes = [one.node_id for one in clients]
        names = {*nodes, *filter(None, (host_of(one.peer) for one in clients))} if len(nodes) <= _MOST_NAMES else None
        return ServerReport(
            envoys=len(nodes),
            silent=self._loads.silent(nodes, now),
            known_as=None if names is None else tuple(sorted(names)),
            refused=self._clients.refused(),
            ports=self.ports,
        )

    def envoys(self) -> tuple[int, int]:
        """Count the Envoys that are connected, and those of them that have acknowledged all that is published."""
        envoys = self._envoys()
        return len(envoys.every), len(envoys.every) - len(envoys.others)

    def loads(self) -> LoadReader:
        """Begin to read what load the Envoys report."""
        return LoadReader(self._loads)

    def follow(self) -> ReportReader:
        """Begin to read: everything first, then what changes."""
        reader = ReportReader(self)
        self._readers.add(reader)
        reader.look_again(None)
        return reader

    def routes(self) -> Iterable[RouteKey]:
        """List the routes that there is a report on."""
        return self._published.routes()

    def look_again(self, routes: Iterable[RouteKey] | None) -> None:
        """Something changed for these routes; None: for all of them."""
        changed = None if routes is None else frozenset(routes)
        self._seen = None
        if changed is None:
            self._known.clear()
        else:
            for key in changed:
                self._known.pop(key, None)
        for reader in self._readers:
            reader.look_again(changed)

    def _loads_changed(self) -> None:
        for reader in self._readers:
            reader.loads_changed()

    def _envoys(self) -> Progress:
        """Return how far the Envoys are; looked up once until something changes."""
        if self._seen is None:
            self._seen = self._clients.progress().of(_counts)
        return self._seen


def _counts(client: ClientState) -> bool:
    return client.initialised and client.counts


def _not_usable(remote: Remote, because: tuple[ServingProblem, ...]) -> RemoteReport:
    words = "; ".join(one.message for one in because)
    return RemoteReport(backend=remote.digest, name=remote.name, reason=because[0].reason, message=words)


def _without_secrets(lacking: Iterable[ClientState], keys: Iterable[ResourceKey]) -> Iterator[str]:
    """Name Envoys that wait for secrets they will not be given: all wait, where there is no node token."""
    if any(key.type_url == SECRET for key in keys):
        names = [envoy.node_id for envoy in lacking if not envoy.authorised]
        yield from (f"{name} is given no secrets: the xDS server has no node token" for name in names[:_NAMED])
        if len(names) > _NAMED:
            yield f"{_NAMED} of {len(names)} such Envoys are named"


def _refused(refusals: Sequence[tuple[ClientState, Rejection]]) -> Iterator[str]:
    """Say who refuses what; of many refusals, as many as somebody would read, and how many more there are."""
    left = _LONGEST_REFUSALS
    for told, (client, refusal) in enumerate(refusals):
        if told == _MOST_REFUSALS or left <= 0:
            yield f"{told} of {len(refusals)} refusals are told"
            return
        words = f"{client.node_id} refuses {SHORT[refusal.key.type_url]} {refusal.key.name}: {refusal.message.strip()}"
        yield words if len(words) <= left else f"{words[:left]}..."
        left -= len(words)


class ReportReader(AsyncIterator[tuple[RouteReport, ...]]):
    """One reader: gets each report that differs from the one it got last, the newest state only.

    When Envoys reported load it returns none of them soon, so that whoever reads looks at the loads.
    """

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._due: set[RouteKey] = set()
        self._all_due = False
        self._sent: dict[RouteKey, RouteReport] = {}
        self._news: dict[RouteKey, RouteReport] = {}
        self._loads_changed = False
        self._wake = asyncio.Event()
        # When it looks again, by the loop's clock. No pause: who reads may give up before it ends, each time.
        self._looks_at: float | None = None

    def look_again(self, routes: Iterable[RouteKey] | None) -> None:
        """Report on these routes again, if there is anything new; None: on all of them."""
        if routes is None:
            self._all_due = True
        else:
            self._due.update(routes)
        self._wake.set()

    def loads_changed(self) -> None:
        """Say that there is something new to read of the loads."""
        self._loads_changed = True
        self._wake.set()

    async def __anext__(self) -> tuple[RouteReport, ...]:
        is_first, clock = self._looks_at is None, asyncio.get_running_loop().time
        while True:
            await self._wake.wait()
            await asyncio.sleep(max(0.0, (self._looks_at or 0.0) - clock()))
            await self._look()
            news, self._news = self._news, {}
            for key, report in news.items():
                if report.route:
                    self._sent[key] = report
                else:
                    self._sent.pop(key, None)
            is_told, self._loads_changed = bool(news) or self._loads_changed, False
            if is_told or is_first:
                return tuple(news.values())

    async def _look(self) -> None:
        """Look at what is due, a few routes at a time: others have their turn in between, and more time than this.

        Whoever stops waiting here loses nothing: what was not looked at is due with the next read.
        """
        clock, busy, looked = asyncio.get_running_loop().time, 0.0, 0
        if self._all_due:
            self._due.update(self._reports.routes())
            self._all_due = False
        routes = sorted(self._due)
        while looked < len(routes):
            began = clock()
            some = routes[looked : looked + self._reports.at_once]
            for key in some:
                self._due.discard(key)
                self._look_at(key)
            looked += len(some)
            busy += clock() - began
            await asyncio.sleep(0)
        self._looks_at = clock() + max(self._reports.timing.gathering, busy * _REST)
        if not (self._due or self._all_due):
            self._wake.clear()

    def _look_at(self, key: RouteKey) -> None:
        report = self._reports.known(key)
        if report == self._sent.get(key):
            self._news.pop(key, None)
        else:
            self._news[key] = report
