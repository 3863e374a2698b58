"""Running counts of requests: what goes to a cluster is counted for the side of the route that sent it.

The sides of a route are its replicas and its remote backends (`Side`). A remote backend that several routes share is
one cluster, so what Envoy counts there has to be divided among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from controller.api.contract.reports import Count
from controller.api.contract.route import REMOTE, Route, RouteKey
from xds_server.resources.backend_names import backend_name
from xds_server.resources.names import LOCAL, Side, is_backend, side_of_cluster
from xds_server.resources.routing import is_direct
from xds_server.snapshot.snapshot import CLUSTER, ResourceKey
from xds_server.stream.load_reporting.wire import LocalityLoad, ReportedLoads
from xds_server.stream.protocol.parts import Parts, at_once, batches

ZERO = Count()


def add(one: Count, other: Count | LocalityLoad) -> Count:
    """Add another count of the same moment."""
    return Count(
        one.issued + other.issued,
        one.succeeded + other.succeeded,
        one.failed + other.failed,
        one.in_flight + other.in_flight,
    )


def accumulate(total: Count, later: Count) -> Count:
    """Add a later count: what is in flight is what is so by then."""
    return Count(
        total.issued + later.issued,
        total.succeeded + later.succeeded,
        total.failed + later.failed,
        later.in_flight,
    )


class BackendUsers:
    """The remote sides that use each backend cluster, and those of them that reach it by no cluster of their own.

    A request that fails over to the backend, or that goes there by the internal listener, passes a cluster of its route
    first. Only a share of the split that is sent to a backend directly shows in the backend's cluster alone.
    `revision` is another after each change of what a cluster counts as.
    """

    def __init__(self) -> None:
        self.revision = 0
        self._sides: dict[RouteKey, tuple[str, ...]] = {}
        self._backends: dict[RouteKey, dict[str, str]] = {}
        self._users: dict[str, set[str]] = defaultdict(set)
        self._direct: dict[str, set[str]] = defaultdict(set)
        self._last_direct: dict[str, frozenset[str]] = {}

    def set_route(self, key: RouteKey, route: Route, resources: Iterable[ResourceKey]) -> frozenset[str]:
        """Set a route and the resources that were last published for it; return the names that mean nothing now.

        They are those of its sides that it no longer has, and of backends that nobody uses any more.
        """
        clusters = {one.name for one in resources if one.type_url == CLUSTER and is_backend(one.name)}
        used = {str(Side(key, one.name)): backend_name(key, one) for one in route.remotes} if clusters else {}
        backends = {side: backend for side, backend in used.items() if backend in clusters}
        is_limited = route.local.max_requests_per_replica is not None
        direct = {
            str(Side(key, remote.name))
            for remote in route.remotes
            if is_direct(remote, is_limited=is_limited) and route.percent_of(remote)
        }
        unused = self._set_backends(key, backends, direct)
        names = tuple(remote.name for remote in route.remotes)
        # Nothing goes to the remote side of a route without one, which is counted all the same.
        before, sides = self.sides(key), tuple(str(Side(key, name)) for name in (LOCAL, *(names or (REMOTE,))))
        if sides != before:
            self._sides[key] = sides
            self.revision += 1
        return unused.union(before).difference(sides)

    def remove_route(self, key: RouteKey) -> frozenset[str]:
        """Forget a route; return the names that mean nothing now."""
        sides = self._sides.pop(key, ())
        if sides:
            self.revision += 1
        return self._set_backends(key, {}, ()).union(sides)

    def sides(self, key: RouteKey) -> tuple[str, ...]:
        """Name the sides of a route; none if it is not served."""
        return self._sides.get(key, ())

    def users(self, backend: str) -> AbstractSet[str]:
        """Name the sides that may be sent to a backend."""
        return self._users.get(backend, frozenset())

    def counts_as(self, cluster: str) -> str | None:
        """Name the side or the backend that a cluster is; None for any other name, whoever reports it."""
        if is_backend(cluster):
            return cluster if self._users.get(cluster) else None
        side = side_of_cluster(cluster)
        name = str(side) if side else None
        return name if side and name in self.sides(side.key) else None

    def direct(self, backend: str) -> AbstractSet[str]:
        """Name the sides that are sent there directly, or the last that were: their requests may still be on it."""
        return self._direct.get(backend) or self._last_direct.get(backend, frozenset())

    def _set_backends(self, key: RouteKey, backends: Mapping[str, str], direct: Collection[str]) -> frozenset[str]:
        """Set what backends the sides of a route use, and directly; return those that nobody uses any more."""
        before = self._backends.pop(key, {})
        if backends != before:
            self.revision += 1
        for side, backend in before.items():
            self._users[backend].discard(side)
            self._direct[backend].discard(side)
            if backends.get(side) != backend:
                self._last_direct[backend] = self._last_direct.get(backend, frozenset()) - {side}
        for side, backend in backends.items():
            self._backends.setdefault(key, {})[side] = backend
            self._users[backend].add(side)
            if side in direct:
                self._direct[backend].add(side)
            if self._direct[backend]:
                self._last_direct[backend] = frozenset(self._direct[backend])
        unused = frozenset(one for one in before.values() if not self._users[one])
        for backend in unused:
            del self._users[backend], self._direct[backend], self._last_direct[backend]
        return unused


class FoundClusters(NamedTuple):
    """What clusters that are new in a report count for, by their names, and at which revision of the routes.

    That is the side that a cluster is named after, if any, and the name that it counts as; None if nobody counts it. A
    side that no route has is left out. `backends` are those of the clusters that are one.
    """

    revision: int
    clusters: Mapping[str, tuple[Side | None, str | None]]
    backends: AbstractSet[str]


class StreamCounts:
    """Running counts of one stream: by side of a route, and by backend cluster.

    `seconds` is how long what was counted took, as Envoy measures it; `reported_at` is when the last report came.
    `unknown` are the sides that cannot be told from those of other routes now.

    There are thousands of names, and in most reports next to nothing is new. So what changed is noted
    (`changed_since`), and what does not change is not looked at.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.reported_at = 0.0
        self.counts: dict[str, Count] = {}
        self.unknown: frozenset[str] = frozenset()
        self.reports = 0
        self._changed: dict[str, int] = {}
        self._named: frozenset[str] = frozenset()
        # By cluster that is counted: what it counts for; None where that is counted elsewhere.
        self._tracked: dict[str, str | None] = {}
        self._backends: set[str] = set()
        self._in_flight: set[str] = set()
        # By backend: what it counted and nobody was told of yet; below zero what is to be subtracted.
        self._ahead: dict[str, Count] = {}

    def find_clusters(self, report: ReportedLoads, users: BackendUsers) -> Parts[FoundClusters | None]:
        """Look up the clusters that are new in a report, for `add_report`: there may be thousands. None are: None."""
        if self._knows_all(report.names):
            return None
        found = FoundClusters(users.revision, clusters := {}, backends := set())
        for names in batches(report.names - self._tracked.keys()):
            for cluster in names:
                side, counted = side_of_cluster(cluster), users.counts_as(cluster)
                if counted or not (side or is_backend(cluster)):
                    # Another cluster is on the way to one of the sides, where what passes it is counted.
                    clusters[cluster] = side, counted
                    if counted and is_backend(cluster):
                        backends.add(cluster)
            yield
        return found

    def add_report(
        self, report: ReportedLoads, users: BackendUsers, now: float, found: FoundClusters | None
    ) -> Mapping[str, Count]:
        """Add a report, of which `find_clusters` found these; return what is new in it, by the same names as `counts`.

        Should the routes have changed since, they are looked up again.
        """
        if not self._knows_all(report.names) and (found is None or found.revision != users.revision):
            found = at_once(self.find_clusters(report, users))
        self.reports += 1
        new: dict[str, Count] = {}
        if found:
            self._track(report.names, users, found)
        for load in report.busy:
            name = self._tracked.get(load.cluster)
            if name is not None:
                for locality in load.localities:
                    new[name] = add(new.get(name, ZERO), locality)
        self._divide(new, users)
        for name in self._in_flight - new.keys():
            new[name] = ZERO
        self._in_flight = {name for name, count in new.items() if count.in_flight}
        for name, count in new.items():
            self._set(name, accumulate(self.counts.get(name, ZERO), count))
        self.seconds += report.seconds
        self.reported_at = now
        return new

    def changed_since(self, report: int) -> Iterator[str]:
        """Name what changed after so many `reports`, and is there still; 0 names all."""
        for name, changed in reversed(self._changed.items()):
            if changed <= report:
                return
            yield name

    def forget(self, names: frozenset[str]) -> None:
        """Forget sides and backends that are gone."""
        for name in names:
            self.counts.pop(name, None)
            self._changed.pop(name, None)
            self._ahead.pop(name, None)
            self._tracked.pop(name, None)
        self._in_flight -= names
        self._named = frozenset()

    def end(self) -> None:
        """Keep nothing but what readers are told: there is no report to come."""
        self._named, self._tracked, self._backends = frozenset(), {}, set()
        self._in_flight, self._ahead = set(), {}

    def _set(self, name: str, count: Count) -> None:
        if self.counts.get(name) != count:
            self.counts[name] = count
            self._note(name)

    def _note(self, name: str) -> None:
        # The newest stand last.
        self._changed.pop(name, None)
        self._changed[name] = self.reports

    def _knows_all(self, reported: frozenset[str]) -> bool:
        return reported == self._named and len(self._tracked) == len(reported)

    def _track(self, reported: frozenset[str], users: BackendUsers, found: FoundClusters) -> None:
        """Begin to count for clusters that are new in a report: from now on, what is not mentioned of them is zero."""
        self._named = reported
        self._tracked = {cluster: side for cluster, side in self._tracked.items() if cluster in reported}
        for cluster, (side, counted) in found.clusters.items():
            self._tracked[cluster] = counted
            if side and counted and (side.name == LOCAL or str(Side(side.key, LOCAL)) in self.counts):
                for name in users.sides(side.key):
                    if name not in self.counts:
                        self._set(name, ZERO)
        self._backends = {one for one in self._backends if one in self._tracked} | found.backends

    def _divide(self, new: dict[str, Count], users: BackendUsers) -> None:
        """Count what backends report for the sides that sent it.

        What passed a cluster of its route first is that route's, the rest is of whoever is sent there directly: of one
        side, or it cannot be told.
        """
        unknown: set[str] = set()
        for backend in self._backends:
            direct = users.direct(backend)
            if len(direct) > 1:
                unknown |= direct
            elif direct:
                (only,) = direct
                self._count_for(only, backend, users.users(backend), new)
            if len(direct) != 1:
                self._ahead.pop(backend, None)
        if unknown != self.unknown:
            for name in self.unknown ^ unknown:
                if name in self.counts:
                    self._note(name)
            self.unknown = frozenset(unknown)

    def _count_for(self, side: str, backend: str, users: AbstractSet[str], new: dict[str, Count]) -> None:
        """Count for a side what it sent to a backend directly: everything if it is the only user."""
        count = new.get(backend, ZERO)
        if len(users) > 1:
            passed = [new.get(user, ZERO) for user in users]
            count = add(new.get(side, ZERO), self._without(backend, count, passed))
        if count == ZERO:
            new.pop(side, None)
        else:
            new[side] = count

    def _without(self, backend: str, count: Count, passed: Iterable[Count]) -> Count:
        """Subtract what passed a cluster of its route from a backend's count.

        A request that passes two clusters is not counted by both at the same moment. It is sent by its route's first
        and has ended at the backend first. So what the backend was not sent yet is subtracted from what comes next; and
        as long as requests of a cluster are in flight, as many of those that ended just now may be that cluster's, and
        are not told before the next report. When there is nothing to do, both have counted all: what is still too much
        never got to the backend, but for what was told too early.
        """
        total = ZERO
        for one in passed:
            total = add(total, one)
        before = self._ahead.pop(backend, ZERO)
        ahead = Count(*(a + b - c for a, b, c in zip(before, count, total, strict=True)))
        told = Count(
            max(ahead.issued, 0),
            _surely_ended(before.succeeded, ahead.succeeded, total.in_flight),
            _surely_ended(before.failed, ahead.failed, total.in_flight),
        )
        if count != ZERO or total != ZERO:
            self._ahead[backend] = Count(
                ahead.issued - told.issued, ahead.succeeded - told.succeeded, ahead.failed - told.failed
            )
        elif (early := ahead.succeeded + max(0, -ahead.issued)) < 0:
            self._ahead[backend] = Count(succeeded=early)
        return told._replace(in_flight=max(count.in_flight - total.in_flight, 0))


def _surely_ended(before: int, now: int, in_flight: int) -> int:
    """Of what ended `now`, and was not told, return what is no request of others: more than these have `in_flight`.

    What was so `before`, and still is, is none either: they have counted theirs by now.
    """
    return max(now - in_flight, min(before, now), 0)
