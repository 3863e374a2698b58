"""What the xDS servers say of a model: of its Envoys, and of its remote backend."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from controller.api.contract.reports import RemoteReport, ReplicaReport, RouteReport
from controller.api.contract.route import Remote, Route
from controller.api.timing import REAL, ReportTiming
from controller.decision import Known, RemoteFacts, Unknown
from controller.signals.load_reports import FleetLoads
from controller.store.objects import ObjectRef


@dataclass(frozen=True, slots=True)
class ProxyReport:
    """How many Envoys serve a model, how many of them acknowledged everything of it, and what the others refuse."""

    connected: int
    programmed: int
    refusals: tuple[str, ...] = ()


NO_PROXIES = ProxyReport(connected=0, programmed=0)


class ProxyReports(Protocol):
    """Where the reports come from: the xDS server of the same process, or every replica of it."""

    def report(self, model: ObjectRef, route: Route) -> ProxyReport | None:
        """Report on one model; an Envoy that still has an older route has not acknowledged this one.

        None while nothing was heard of any Envoy, which is not the same as that there is none.
        """
        ...

    def remote(self, model: ObjectRef, remote: Remote) -> Known[RemoteFacts] | Unknown | None:
        """Say whether this remote backend of a model answers. None while that is still being found out."""
        ...


_UNCHECKED = Unknown("no xDS server checks it: a credential is missing (see Programmed), or checks are turned off")


def remote_facts(said: Iterable[RouteReport | None], remote: Remote) -> Known[RemoteFacts] | Unknown | None:
    """Judge a remote backend by the reports of every replica on a model, None for one that was not told of it yet.

    Who finds it healthy is right: what can be reached from somewhere is there. Nothing is said (None) while a replica
    may still find it so: its first check has not ended, or it has another remote backend yet. One that says nothing of
    remote backends, since it is older or is not to check them, does not count.
    """
    told = [one.remote(remote.name) if one else RemoteReport(backend="") for one in said]
    current = [_of(one, remote.digest) for one in told if one]
    healthy = next((one for one in current if one.healthy), None)
    if healthy is None and any(one.healthy is None for one in current):
        return None
    best = healthy or next(iter(current), None)
    if best is None or best.healthy is None or best.since is None:
        return _UNCHECKED
    return Known(RemoteFacts(healthy=best.healthy, detail=best.message, reason=best.reason), best.since)


def _of(report: RemoteReport, backend: str) -> RemoteReport:
    return report if report.backend == backend else RemoteReport(backend=backend)


MODEL = "ModelDeployment"


class Fleet:
    """The newest report of every replica on every model, and in `loads` what load they have.

    Nothing is reported before every replica that is expected said all it had to say, or was dropped: half of the truth
    would take back what was said of models before a restart. So would the moments in which all Envoys change from one
    replica to the next.
    """

    def __init__(self, timing: ReportTiming = REAL.reports) -> None:
        self.loads = FleetLoads(timing)
        self._timing = timing
        self._said: dict[str, dict[ObjectRef, RouteReport]] = {}
        self._envoys: dict[str, int] = {}
        self._complete: set[str] = set()
        self._awaited: set[str] = set()
        self._envoy_at = -math.inf
        self._nobody = True

    def expect(self, replica: str) -> None:
        """There is a replica that was not heard yet."""
        self._awaited.add(replica)

    def hear(self, replica: str, report: RouteReport) -> ObjectRef:
        """Take in a report; return the model it is about."""
        model = ObjectRef(*report.key)
        said = self._said.setdefault(replica, {})
        if report.route:
            said[model] = report
        else:
            said.pop(model, None)
        return model

    def count(self, replica: str, report: ReplicaReport, now: float) -> bool:
        """Take in how many Envoys a replica has; say whether it is news that there is none, or one again.

        `now` are the seconds of a steady clock.
        """
        self._envoys[replica] = report.envoys
        self.loads.silent(replica, report.silent)
        before = self._nobody
        if any(self._envoys.values()):
            self._envoy_at, self._nobody = now, False
        else:
            self._nobody = now - self._envoy_at >= self._timing.envoys_away
        return self._nobody != before

    def complete(self, replica: str, named: frozenset[ObjectRef]) -> None:
        """A replica, expected or heard before, named every model it has."""
        said = self._said.setdefault(replica, {})
        for model in said.keys() - named:
            del said[model]
        self._complete.add(replica)
        self._awaited.discard(replica)

    def drop(self, replica: str) -> None:
        """A replica is gone, or was not heard for too long."""
        self._complete.discard(replica)
        self._awaited.discard(replica)
        self.loads.drop(replica)
        self._envoys.pop(replica, None)
        self._said.pop(replica, None)

    @property
    def replicas(self) -> frozenset[str]:
        """The replicas that count."""
        return frozenset(self._complete)

    def report(self, model: ObjectRef, route: Route) -> ProxyReport | None:
        """Add up what every replica says; an Envoy that still has an older route has not acknowledged this one.

        None while a replica is awaited, none was heard, or all Envoys may be on their way to another one.
        """
        if self._awaited or not self._complete:
            return None
        said = self._of(model)
        # A replica that was not told of a model yet will serve it to all its Envoys.
        connected = sum(one.connected if one else self._envoys.get(replica, 0) for replica, one in said.items())
        if not connected and not self._nobody:
            return None
        current = [one for one in said.values() if one and one.route == route.digest]
        return ProxyReport(
            connected=connected,
            programmed=sum(one.programmed for one in current),
            refusals=tuple(dict.fromkeys(words for one in current for words in one.refusals)),
        )

    def remote(self, model: ObjectRef, remote: Remote) -> Known[RemoteFacts] | Unknown | None:
        """Say whether this remote backend of a model answers.

        None while a replica is awaited, none was heard, or one of them is still finding out.
        """
        if self._awaited or not self._complete:
            return None
        return remote_facts(self._of(model).values(), remote)

    def _of(self, model: ObjectRef) -> dict[str, RouteReport | None]:
        return {replica: self._said[replica].get(model) for replica in sorted(self._complete)}
