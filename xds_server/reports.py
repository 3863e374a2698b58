"""What this replica of the xDS server reports of its routes, and the readers that follow it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Protocol

from controller.api.contract.reports import RemoteReport, RouteReport, ServerReport
from controller.api.contract.route import Remote, Route, RouteKey
from controller.api.timing import REAL, ReportTiming
from xds_server.loads.loads import LoadReader, Loads
from xds_server.routes.credentials import ServingProblem
from xds_server.routes.translation import NOT_TRANSLATED
from xds_server.snapshot.snapshot import SECRET, SHORT, ResourceKey
from xds_server.stream.server.clients import Holding

# Envoys that are named, of all that have not acknowledged a route: as many as somebody would look at.
_NAMED = 3


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

    def holds(self, keys_and_versions: Iterable[tuple[ResourceKey, str]]) -> tuple[Holding, ...]:
        """Return for each client which of these resource versions it has not ACKed."""


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
        self._published = published
        self._clients = clients
        self._loads = loads or Loads()
        self._remotes = remotes
        self._readers: weakref.WeakSet[ReportReader] = weakref.WeakSet()  # One that nobody holds needs nothing.

    def report(self, key: RouteKey) -> RouteReport:
        """Report on one route; debug clients, strangers and those that just joined do not count."""
        route = self._published.route(key)
        if route is None:
            return RouteReport(kind=key.kind, namespace=key.namespace, name=key.name, connected=len(self._envoys(())))
        versions = tuple(self._published.versions(key))
        envoys = self._envoys(versions)
        keys = {one for one, _ in versions}
        problems = self._published.problems(key)
        not_translated = tuple(one.message for one in problems if one.reason == NOT_TRANSLATED)
        unusable = tuple(one for one in problems if one.reason != NOT_TRANSLATED)
        refused = (
            f"{envoy.client.node_id} refuses {SHORT[refusal.key.type_url]} {refusal.key.name}: "
            f"{refusal.message.strip()}"
            for envoy in envoys
            for refusal in envoy.client.rejections
            if refusal.key in keys
        )
        return RouteReport(
            kind=key.kind,
            namespace=key.namespace,
            name=key.name,
            route=route.digest,
            connected=len(envoys),
            programmed=sum(envoy.complete for envoy in envoys),
            refusals=(*not_translated, *_without_secrets(envoys, keys), *refused),
            waiting=tuple(sorted({one.client.node_id for one in envoys if not one.complete})[:_NAMED]),
            remotes=tuple(one for remote in route.remotes if (one := self._remote(key, remote, unusable))),
        )

    def _remote(self, key: RouteKey, remote: Remote, unusable: tuple[ServingProblem, ...]) -> RemoteReport | None:
        """Report on a remote backend. What one of a route lacks keeps requests from all of them, unchecked."""
        if not unusable:
            return self._remotes.report(key, remote)
        words = "; ".join(one.message for one in unusable)
        return RemoteReport(backend=remote.digest, name=remote.name, reason=unusable[0].reason, message=words)

    def replica(self, now: float) -> ServerReport:
        """Report on this replica as a whole; `now` is of the steady clock of the loads."""
        nodes = [one.client.node_id for one in self._envoys(())]
        return ServerReport(envoys=len(nodes), silent=self._loads.silent(nodes, now))

    def loads(self) -> LoadReader:
        """Begin to read what load the Envoys report."""
        return LoadReader(self._loads)

    def follow(self) -> ReportReader:
        """Begin to read: everything first, then what changes."""
        reader = ReportReader(self)
        self._readers.add(reader)
        reader.look_again(self._published.routes())
        return reader

    def look_again(self, routes: Iterable[RouteKey] | None) -> None:
        """Something changed for these routes; None: for all of them."""
        changed = frozenset(self._published.routes() if routes is None else routes)
        for reader in self._readers:
            reader.look_again(changed)

    def _envoys(self, versions: Iterable[tuple[ResourceKey, str]]) -> list[Holding]:
        return [one for one in self._clients.holds(versions) if one.client.initialised and one.client.counts]


def _without_secrets(envoys: Iterable[Holding], keys: Iterable[ResourceKey]) -> Iterator[str]:
    """Name the Envoys that wait for secrets they will not be given: all, where there is no node token."""
    if any(key.type_url == SECRET for key in keys):
        for envoy in envoys:
            if not envoy.client.authorised:
                yield f"{envoy.client.node_id} is given no secrets: the xDS server has no node token"


class ReportReader(AsyncIterator[tuple[RouteReport, ...]]):
    """One reader: gets each report that differs from the one it got last, the newest state only."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._due: set[RouteKey] = set()
        self._sent: dict[RouteKey, RouteReport] = {}
        self._wake = asyncio.Event()
        self._is_first = True

    def look_again(self, routes: Iterable[RouteKey]) -> None:
        """Report on these routes again, if there is anything new."""
        self._due.update(routes)
        self._wake.set()

    async def __anext__(self) -> tuple[RouteReport, ...]:
        while True:
            await self._wake.wait()
            if not self._is_first:
                await asyncio.sleep(self._reports.timing.gathering)
            self._wake.clear()
            due, self._due = self._due, set()
            reports = tuple(report for key in sorted(due) if (report := self._changed(key)))
            if reports or self._is_first:
                self._is_first = False
                return reports

    def _changed(self, key: RouteKey) -> RouteReport | None:
        report = self._reports.report(key)
        if report == self._sent.get(key):
            return None
        if report.route:
            self._sent[key] = report
        else:
            self._sent.pop(key, None)
        return report
