"""What this replica of the xDS server says of its models, and to whom."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Protocol

from controller.api.contract.reports import RemoteReport, ReplicaReport, RouteReport
from controller.api.contract.route import Remote, Route, RouteKey
from controller.api.timing import REAL, ReportTiming
from xds_server.loads.loads import LoadReader, Loads
from xds_server.snapshot.snapshot import SECRET, SHORT, ResourceKey
from xds_server.stream.server.clients import Holding


class Served(Protocol):
    """What is served: see `Delivery`."""

    def models(self) -> Iterable[RouteKey]:
        """List the models that have a route."""

    def route(self, model: RouteKey) -> Route | None:
        """Return the route that was last published for a model."""

    def versions(self, model: RouteKey) -> Iterable[tuple[ResourceKey, str]]:
        """List what was last published for a model."""

    def problems(self, model: RouteKey) -> tuple[str, ...]:
        """Say what could not be resolved for a model."""


class Clients(Protocol):
    """Who was served what: see `XdsServer`."""

    def holds(self, keys_and_versions: Iterable[tuple[ResourceKey, str]]) -> tuple[Holding, ...]:
        """Return for each client which of these resource versions it has not ACKed."""


class Remotes(Protocol):
    """What remote backends are found to be: see `Checks`."""

    def report(self, model: RouteKey, remote: Remote) -> RemoteReport | None:
        """Report on the backend of a model, by its route; None when nobody checks it."""


class _Unchecked:
    def report(self, model: RouteKey, remote: Remote) -> RemoteReport | None:
        return None


UNCHECKED: Remotes = _Unchecked()
"""No remote backend is checked."""


class Reports:
    """The reports of this replica, and the readers that follow them."""

    def __init__(
        self,
        served: Served,
        clients: Clients,
        loads: Loads | None = None,
        remotes: Remotes = UNCHECKED,
        timing: ReportTiming = REAL.reports,
    ) -> None:
        self.timing = timing
        self._served = served
        self._clients = clients
        self._loads = loads or Loads()
        self._remotes = remotes
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()  # One that nobody holds needs nothing.

    def report(self, model: RouteKey) -> RouteReport:
        """Report on one model as things are now; debug clients and those that just joined do not count."""
        route = self._served.route(model)
        if route is None:
            return RouteReport(
                kind=model.kind, namespace=model.namespace, name=model.name, connected=len(self._envoys(()))
            )
        versions = tuple(self._served.versions(model))
        envoys = self._envoys(versions)
        keys = {key for key, _ in versions}
        refused = (
            f"{envoy.client.node_id} refuses {SHORT[refusal.key.type_url]} {refusal.key.name}: "
            f"{refusal.message.strip()}"
            for envoy in envoys
            for refusal in envoy.client.rejections
            if refusal.key in keys
        )
        return RouteReport(
            kind=model.kind,
            namespace=model.namespace,
            name=model.name,
            route=route.digest,
            connected=len(envoys),
            programmed=sum(envoy.complete for envoy in envoys),
            refusals=(*self._served.problems(model), *_strangers(envoys, keys), *refused),
            remotes=tuple(one for remote in route.remotes if (one := self._remotes.report(model, remote))),
        )

    def replica(self, now: float) -> ReplicaReport:
        """Report on this replica as a whole; `now` is of the steady clock of the loads."""
        nodes = [one.client.node_id for one in self._envoys(())]
        return ReplicaReport(envoys=len(nodes), silent=self._loads.silent(nodes, now))

    def loads(self) -> LoadReader:
        """Begin to read what load the Envoys report."""
        return LoadReader(self._loads)

    def _envoys(self, versions: Iterable[tuple[ResourceKey, str]]) -> list[Holding]:
        return [one for one in self._clients.holds(versions) if one.client.initialised and not one.client.is_debug]

    def follow(self) -> Reader:
        """Begin to read: everything first, then what changes."""
        reader = Reader(self)
        self._readers.add(reader)
        reader.look_at(self._served.models())
        return reader

    def look_again(self, models: Iterable[RouteKey] | None) -> None:
        """Something changed for these models; None: for all of them."""
        for model in models or ():
            self._loads.take(model, self._served.route(model), (key for key, _ in self._served.versions(model)))
        changed = frozenset(self._served.models() if models is None else models)
        for reader in self._readers:
            reader.look_at(changed)


def _strangers(envoys: Iterable[Holding], keys: Iterable[ResourceKey]) -> Iterator[str]:
    """Name the Envoys that wait for secrets they will not be given."""
    if any(key.type_url == SECRET for key in keys):
        for envoy in envoys:
            if not envoy.client.authorised:
                yield f"{envoy.client.node_id} is given no secrets: it does not carry the node token"


class Reader(AsyncIterator[tuple[RouteReport, ...]]):
    """One reader: gets each report that differs from the one it got last, the newest state only."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._due: set[RouteKey] = set()
        self._told: dict[RouteKey, RouteReport] = {}
        self._news = asyncio.Event()
        self._first = True

    def look_at(self, models: Iterable[RouteKey]) -> None:
        """Report on these models again, if there is anything new."""
        self._due.update(models)
        self._news.set()

    async def __anext__(self) -> tuple[RouteReport, ...]:
        while True:
            await self._news.wait()
            if not self._first:
                await asyncio.sleep(self._reports.timing.gathering)
            self._news.clear()
            due, self._due = self._due, set()
            reports = tuple(report for model in sorted(due) if (report := self._changed(model)))
            if reports or self._first:
                self._first = False
                return reports

    def _changed(self, model: RouteKey) -> RouteReport | None:
        report = self._reports.report(model)
        if report == self._told.get(model):
            return None
        if report.route:
            self._told[model] = report
        else:
            self._told.pop(model, None)
        return report
