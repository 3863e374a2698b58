"""What the xDS servers say of a route: of the Envoys that serve it, and of its remote backends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from controller.api.contract.health import RemoteHealth, unknown
from controller.api.contract.reports import EntranceReport, RemoteReport, RouteReport, ServerReport
from controller.api.contract.route import Remote, Route
from controller.api.timing import REAL, ReportTiming
from controller.signals.fleet_loads import FleetLoads
from controller.store.objects import ObjectRef

# Programs of a gateway listen on a dozen. A server that says it were thousands takes no port from models.
_MOST_PORTS = 64
_UNCHECKED = unknown("no xDS server checks it: checks are turned off")


@dataclass(frozen=True, slots=True)
class Programmed:
    """How many Envoys serve a route, how many of them acknowledged everything of it, and what the others refuse.

    `waiting` names who has not acknowledged it yet: Envoys, and xDS servers that have not sent it. `refused` says of
    whom no Envoy is made, where none is connected.
    """

    connected: int
    programmed: int
    refusals: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What one replica of the xDS server says of a route, None while it has not been sent it, and its Envoys in all.

    `replica` is its address, empty in the same process. `known_as` is what its Envoys are known as, None where it does
    not say, and `refused` what is wrong with a client that is none of them.
    """

    report: RouteReport | None
    envoys: int
    replica: str = ""
    known_as: frozenset[str] | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class ProxyFacts:
    """What every replica of the xDS server says of one route, in the order of their addresses.

    `may_move` is true while Envoys may be on their way from one replica to another, so that none is no evidence.
    """

    replicas: tuple[ServerFacts, ...]
    may_move: bool = False

    @property
    def connected(self) -> int:
        """How many Envoys are connected; a replica that was not sent the route yet will serve it to all it has."""
        return sum(one.report.connected if one.report else one.envoys for one in self.replicas)

    @property
    def known_as(self) -> frozenset[str]:
        """The node ids and addresses of all Envoys; none where a replica does not say whom it has."""
        names = [one.known_as for one in self.replicas]
        return frozenset[str]().union(*(one for one in names if one)) if None not in names else frozenset()

    @property
    def refused(self) -> str:
        """What is wrong with a client of some replica that does not count; empty without one."""
        return next((one.refused for one in self.replicas if one.refused), "")

    def refused_at(self, addresses: frozenset[str]) -> str:
        """Say what is wrong with a client that comes from one of these addresses and does not count; empty without one.

        The words begin with the client, as `ClientAdmission.refused` of the xDS server has them.
        """
        said = (one.refused for one in self.replicas)
        return next((words for words in said if words.partition(" at ")[2].partition(" ")[0] in addresses), "")

    def programmed(self, route: Route) -> Programmed | None:
        """Add up what every replica says; an Envoy that still has an older route has not acknowledged this one.

        None while all Envoys may be on their way to another replica.
        """
        connected, digest = self.connected, route.digest
        if not connected and self.may_move:
            return None
        current = [one.report for one in self.replicas if one.report and one.report.route == digest]
        behind = [one.replica for one in self.replicas if one.report is None or one.report.route != digest]
        return Programmed(
            waiting=(
                *(f"the xDS server {replica}" for replica in behind if replica),
                *sorted({name for one in current for name in one.waiting}),
            ),
            connected=connected,
            programmed=sum(one.programmed for one in current),
            refusals=tuple(dict.fromkeys(words for one in current for words in one.refusals)),
            refused="" if connected else self.refused,
        )

    def entrance_faults(self, route: Route) -> tuple[EntranceReport, ...]:
        """Say what is wrong at the entrance of this route, each once."""
        digest = route.digest
        current = (one.report for one in self.replicas if one.report and one.report.route == digest)
        return tuple(dict.fromkeys(fault for one in current for fault in one.entrance))

    def health_of(self, remote: Remote) -> RemoteHealth | None:
        """Say whether a remote backend of the route answers; None while a replica may still find that it does.

        What real requests met goes before what a check found, and who finds it healthy before who does not: what can be
        reached from somewhere is there, and a connection that is accepted answers no request. A replica may still find
        it healthy while its first check has not ended, or while it has another remote backend. One that says nothing of
        remote backends, since it is older or is not to check them, does not count.
        """
        unfinished = RemoteReport(backend=(digest := remote.digest))
        found = [one.report.remote(remote.name) if one.report else unfinished for one in self.replicas]
        current = [one if one.backend == digest else unfinished for one in found if one]
        known = [one for one in current if one.healthy or (one.by_requests and one.healthy is False)]
        decides = min(known, key=lambda one: (not one.by_requests, not one.healthy), default=None)
        if decides is None and any(one.healthy is None and one.usable for one in current):
            return None
        best = decides or next(iter(current), None)
        if best is None or (best.since is None and best.usable):
            return _UNCHECKED
        return RemoteHealth(healthy=best.healthy, reason=best.reason, message=best.message, since=best.since)

    def may_use(self, remote: Remote) -> bool:
        """Say whether some replica has all that this very remote backend is used with, though nobody checked it yet."""
        found = (one.report.remote(remote.name) if one.report else None for one in self.replicas)
        return any(one.backend == remote.digest and one.usable for one in found if one)


class ProxyReports(Protocol):
    """Where the reports come from: the xDS server of the same process, or every replica of it."""

    def facts(self, ref: ObjectRef) -> ProxyFacts | None:
        """Return what is reported of the route of one object; None while reports are missing, so that none says much.

        That nothing was heard of any Envoy is not the same as that there is none.
        """
        ...

    @property
    def silence(self) -> str:
        """Why reports are missing, in words; empty while nothing is known to be wrong."""
        ...

    @property
    def ports(self) -> frozenset[int]:
        """Ports on which no xDS server serves a model, since programs of the gateway listen there."""
        ...


class Fleet:
    """The newest report of every replica on every model, and in `loads` what load they have.

    There are no facts before every replica that is expected has sent its whole list, or was dropped: half of them
    would take back what was known of models before a restart. So would the moments in which all Envoys change from one
    replica to the next.
    """

    def __init__(self, timing: ReportTiming = REAL.reports) -> None:
        self.loads = FleetLoads(timing)
        self._timing = timing
        self._reports: dict[str, dict[ObjectRef, RouteReport]] = {}
        self._envoys: dict[str, int] = {}
        self._known_as: dict[str, frozenset[str] | None] = {}
        self._refused: dict[str, str] = {}
        # Also of a replica that is gone, which may come again.
        self.ports: frozenset[int] = frozenset()
        self._complete: set[str] = set()
        self._awaited: set[str] = set()
        self._troubles: dict[str, str] = {}
        self._envoy_at = -math.inf
        self._no_envoy = True

    def expect(self, replica: str) -> None:
        """Wait for the first reports of a replica."""
        self._awaited.add(replica)

    def set_trouble(self, replica: str, trouble: str) -> bool:
        """Record why a replica cannot be heard, empty when it is; return whether that is news.

        The replica "" stands for all of them: where they are is not known.
        """
        before = self._troubles.pop(replica, "")
        if trouble:
            self._troubles[replica] = trouble
        return trouble != before

    @property
    def silence(self) -> str:
        """See `ProxyReports`."""
        return "; ".join(words for _, words in sorted(self._troubles.items()))

    def add_report(self, replica: str, report: RouteReport) -> ObjectRef:
        """Record a report on one route; return the object that it is about."""
        model = ObjectRef(*report.key)
        reports = self._reports.setdefault(replica, {})
        if report.route:
            reports[model] = report
        else:
            reports.pop(model, None)
        return model

    def add_replica_report(self, replica: str, report: ServerReport, now: float) -> bool:
        """Record which Envoys a replica has; return whether it is news who they are, or whether there is any at all.

        So is what is wrong with a client that comes and is none, and a port that programs of the gateway listen on.
        `now` are the seconds of a steady clock.
        """
        self._envoys[replica] = report.envoys
        names = None if report.known_as is None else frozenset(report.known_as)
        are_others = self._known_as.get(replica) != names
        self._known_as[replica] = names
        ports = self.ports.union(report.ports)
        has_more_ports = len(self.ports) < len(ports) <= _MOST_PORTS
        if has_more_ports:
            self.ports = ports
        is_refused_anew = self._refused.get(replica, "") != report.refused
        self._refused[replica] = report.refused
        no_envoy_before = self._no_envoy
        if any(self._envoys.values()):
            self._envoy_at, self._no_envoy = now, False
        else:
            self._no_envoy = now - self._envoy_at >= self._timing.envoys_away
        return are_others or self._no_envoy != no_envoy_before or is_refused_anew or has_more_ports

    def complete(self, replica: str, named: frozenset[ObjectRef]) -> None:
        """Record that a replica has reported on all of its routes: these, and no other."""
        reports = self._reports.setdefault(replica, {})
        for model in reports.keys() - named:
            del reports[model]
        self._complete.add(replica)
        self._awaited.discard(replica)

    def drop(self, replica: str) -> None:
        """Forget a replica that is gone, or was silent for too long. What it told of loads is no part of it."""
        self._complete.discard(replica)
        self._awaited.discard(replica)
        self._envoys.pop(replica, None)
        self._known_as.pop(replica, None)
        self._refused.pop(replica, None)
        self._reports.pop(replica, None)

    @property
    def replicas(self) -> frozenset[str]:
        """The replicas that count."""
        return frozenset(self._complete)

    def facts(self, ref: ObjectRef) -> ProxyFacts | None:
        """See `ProxyReports`. None while a replica is waited for, or none has reported."""
        if self._awaited or not self._complete:
            return None
        replicas = sorted(self._complete)
        views = (
            ServerFacts(
                self._reports[one].get(ref),
                self._envoys.get(one, 0),
                one,
                self._known_as.get(one),
                self._refused.get(one, ""),
            )
            for one in replicas
        )
        return ProxyFacts(tuple(views), may_move=not self._no_envoy)
