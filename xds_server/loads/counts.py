"""Which models are sent to which remote backend."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet

from controller.api.contract.reports import Count
from controller.api.contract.route import REMOTE, Route, RouteKey
from xds_server.resources.names import LOCAL, Side, is_backend, side_of_cluster
from xds_server.resources.routing import is_direct
from xds_server.snapshot.snapshot import CLUSTER, ResourceKey
from xds_server.stream.load_reporting.wire import ClusterLoad, LocalityLoad


class Backends:
    """The models of each backend cluster, and those of them whose requests go there without a cluster of their own.

    A request that fails over to the backend, or that goes there by the internal listener, passes a cluster of its model
    first. Only a share of the split that is sent to a backend directly shows in the backend's cluster alone.
    """

    def __init__(self) -> None:
        self._backend_of: dict[RouteKey, str | None] = {}
        self._users: dict[str, set[RouteKey]] = defaultdict(set)
        self._direct: dict[str, set[RouteKey]] = defaultdict(set)
        self._last_direct: dict[str, frozenset[RouteKey]] = {}

    def take(self, model: RouteKey, route: Route | None, keys: Iterable[ResourceKey]) -> None:
        """Take in what was last published for a model; None: it is gone."""
        backend = next((key.name for key in keys if key.type_url == CLUSTER and is_backend(key.name)), None)
        before = self._backend_of.get(model)
        if before is not None:
            self._leave(model, before, for_good=before != backend)
        if route is None:
            self._backend_of.pop(model, None)
            return
        self._backend_of[model] = backend
        if backend is not None and route.remote is not None:
            self._users[backend].add(model)
            is_limited = route.local.max_requests_per_replica is not None
            if is_direct(route.remote, is_limited=is_limited) and route.split.remote:
                self._direct[backend].add(model)
            if self._direct[backend]:
                self._last_direct[backend] = frozenset(self._direct[backend])

    def has(self, model: RouteKey) -> bool:
        """Tell whether a model is served."""
        return model in self._backend_of

    def users(self, backend: str) -> AbstractSet[RouteKey]:
        """Name the models that may be sent to a backend."""
        return self._users.get(backend, frozenset())

    def direct(self, backend: str) -> AbstractSet[RouteKey]:
        """Name the models that are sent there directly, or the last that were: their requests may still be on it."""
        return self._direct.get(backend) or self._last_direct.get(backend, frozenset())

    def _leave(self, model: RouteKey, backend: str, *, for_good: bool) -> None:
        self._users[backend].discard(model)
        self._direct[backend].discard(model)
        if for_good:
            self._last_direct[backend] = self._last_direct.get(backend, frozenset()) - {model}
            if not self._users[backend]:
                del self._users[backend], self._direct[backend], self._last_direct[backend]


ZERO = Count()


def plus(one: Count, other: Count | LocalityLoad) -> Count:
    """Add another count of the same moment."""
    return Count(
        one.issued + other.issued,
        one.succeeded + other.succeeded,
        one.failed + other.failed,
        one.in_flight + other.in_flight,
    )


def followed_by(one: Count, later: Count) -> Count:
    """Add what came later, and have in flight what is so by then."""
    return plus(one, later)._replace(in_flight=later.in_flight)


def local(key: RouteKey) -> str:
    """Name what is counted of the replicas of a route."""
    return str(Side(key, LOCAL))


def remote(key: RouteKey) -> str:
    """Name what is counted of the remote backend of a route."""
    return str(Side(key, REMOTE))


class StreamCounts:
    """Running counts of one stream: by side of a model, and by backend cluster.

    `seconds` is how long what was counted took, as Envoy measures it. `unknown` are the sides that cannot be told from
    those of other models now.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.heard_at = 0.0
        self.counts: dict[str, Count] = {}
        self.unknown: frozenset[str] = frozenset()
        self._tracked: set[str] = set()
        self._backends: set[str] = set()
        self._busy: set[str] = set()
        self._owed: dict[str, Count] = {}

    def take(self, clusters: Collection[ClusterLoad], backends: Backends, now: float) -> Mapping[str, Count]:
        """Take in a report; return what it adds, by the same names as `counts`."""
        added: dict[str, Count] = {}
        self._track({load.cluster for load in clusters}, backends)
        for load in clusters:
            for locality in load.localities:
                name = self._counted_as(load.cluster)
                if name is not None:
                    added[name] = plus(added.get(name, ZERO), locality)
        self._share_out(added, backends)
        for name in self._busy - added.keys():
            added[name] = ZERO
        self._busy = {name for name, count in added.items() if count.in_flight}
        for name, count in added.items():
            self.counts[name] = followed_by(self.counts.get(name, ZERO), count)
        self.seconds += max((load.seconds for load in clusters), default=0.0)
        self.heard_at = now
        return added

    def forget(self, model: RouteKey) -> None:
        """Forget a model that is gone."""
        for name in (local(model), remote(model)):
            self.counts.pop(name, None)
            self._busy.discard(name)
        self._tracked = {name for name in self._tracked if not (one := side_of_cluster(name)) or one.key != model}

    def _track(self, reported: set[str], backends: Backends) -> None:
        """Begin to count for clusters that are new in a report: from now on, what is not said of them is zero."""
        self._tracked &= reported
        for cluster in reported - self._tracked:
            side = side_of_cluster(cluster)
            if side is None or backends.has(side.key):
                self._tracked.add(cluster)
            if cluster in self._tracked and side is not None and side.name == LOCAL:
                self.counts.setdefault(local(side.key), ZERO)
                self.counts.setdefault(remote(side.key), ZERO)
        self._backends = {cluster for cluster in self._tracked if is_backend(cluster)}

    def _counted_as(self, cluster: str) -> str | None:
        """Say what a cluster counts for; None for what counts elsewhere, or is nothing of ours."""
        if cluster not in self._tracked:
            return None
        if is_backend(cluster):
            return cluster
        # The others are ways: what goes by them ends at one of the sides, and counts there.
        side = side_of_cluster(cluster)
        return str(side) if side else None

    def _share_out(self, added: dict[str, Count], backends: Backends) -> None:
        """Give what backends count to the models that sent it.

        What passed a cluster of its model first is that model's, the rest is of who is sent there directly: of one
        model, or it cannot be told.
        """
        unknown: set[str] = set()
        for backend in self._backends:
            direct = backends.direct(backend)
            if len(direct) > 1:
                unknown.update(remote(model) for model in direct)
            elif direct:
                (only,) = direct
                self._give(remote(only), backend, backends.users(backend), added)
        self.unknown = frozenset(unknown)

    def _give(self, name: str, backend: str, users: AbstractSet[RouteKey], added: dict[str, Count]) -> None:
        """Give a side of a model all that it has of a backend's count: all of it if it is the only user."""
        count = added.get(backend, ZERO)
        if len(users) > 1:
            passed = [added.get(remote(user), ZERO) for user in users]
            count = plus(added.get(name, ZERO), self._rest(backend, count, passed))
        if count == ZERO:
            added.pop(name, None)
        else:
            added[name] = count

    def _rest(self, backend: str, count: Count, passed: Iterable[Count]) -> Count:
        """Take what passed a cluster of its model off a backend's count.

        A request on its way may be in the report of one cluster and not yet in that of the other: what is too much now
        is taken off the next one, unless the backend has nothing to do by then.
        """
        total = ZERO
        for one in passed:
            total = plus(total, one)
        owed = self._owed.pop(backend, ZERO)
        rest = Count(*(a - b - c for a, b, c in zip(count, total, owed, strict=True)))
        if count != ZERO and min(rest[:3]) < 0:
            self._owed[backend] = Count(*(max(-one, 0) for one in rest[:3]))
        return Count(*(max(one, 0) for one in rest))
